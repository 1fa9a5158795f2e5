//! A book held against the simplest one that could be: a list of sets.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{LabelSets, Matcher, SetLimits};

type Labels = BTreeMap<&'static str, &'static str>;

const NAMES: [&str; 4] = ["a", "b", "c", "zone"];
const VALUES: [&str; 5] = ["", "1", "2", "two", "x\ny"];

fn book_of(sets: &[Labels]) -> (Book, Vec<(SeriesId, Labels)>) {
    let mut book = Book::new([7; SECRET_BYTES]);
    let mut kept: Vec<(SeriesId, Labels)> = Vec::new();
    for labels in sets {
        let mut written = LabelSets::default();
        let mut pairs: Vec<_> = labels.iter().map(|(name, value)| (*name, *value)).collect();
        written.push(&mut pairs, &SetLimits::default()).expect("a set");
        let fingerprint = book.fingerprint(written.get(0));
        let labels: Labels = pairs.into_iter().collect();
        if book.look_up(fingerprint).is_some() {
            assert!(kept.iter().any(|(_, known)| *known == labels));
            continue;
        }
        let series = SeriesId(100 + kept.len() as u64);
        let added = book.add(written.get(0), series, &mut Vec::new(), |_, _| {}).expect("room");
        book.show([added].into_iter());
        kept.push((series, labels));
    }
    (book, kept)
}

fn found(book: &Book, matchers: &[Matcher]) -> BTreeSet<SeriesId> {
    book.find(matchers).into_iter().map(|place| book.series_at(place)).collect()
}

fn expected(kept: &[(SeriesId, Labels)], matchers: &[Matcher]) -> BTreeSet<SeriesId> {
    let fits = |labels: &Labels| matchers.iter().all(|m| m.accepts(labels.get(m.name()).copied().unwrap_or("")));
    kept.iter().filter(|(_, labels)| fits(labels)).map(|(series, _)| *series).collect()
}

fn labels() -> impl Strategy<Value = Labels> {
    let values = proptest::collection::vec(proptest::sample::select(&VALUES[..]), NAMES.len());
    (proptest::sample::select(&["up", "down"][..]), values).prop_map(|(name, values)| {
        let mut labels: Labels = NAMES.into_iter().zip(values).collect();
        labels.insert("__name__", name);
        labels
    })
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let names = proptest::sample::select(&["__name__", "a", "b", "c", "zone", "missing"][..]);
    let texts = proptest::sample::select(&["", "1", "2", "two", "up", "1|two", ".*", ".+", "t.*", "x.y", "2|"][..]);
    (0..4, names, texts).prop_map(|(kind, name, text)| match kind {
        0 => Matcher::equal(name, text),
        1 => Matcher::not_equal(name, text),
        2 => Matcher::matching(name, text).expect("an expression"),
        _ => Matcher::not_matching(name, text).expect("an expression"),
    })
}

proptest! {
    #[test]
    fn a_book_finds_what_a_list_finds(
        sets in proptest::collection::vec(labels(), 0..200),
        questions in proptest::collection::vec(proptest::collection::vec(matcher(), 0..4), 1..8),
        buried in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (mut book, mut kept) = book_of(&sets);
        for question in &questions {
            prop_assert_eq!(found(&book, question), expected(&kept, question));
        }
        if !kept.is_empty() {
            let places: Vec<u32> = buried.iter().map(|index| index.index(kept.len()) as u32).collect();
            let gone: BTreeSet<u32> = places.iter().copied().collect();
            prop_assert_eq!(book.bury(&places), gone.len());
            prop_assert_eq!(book.bury(&places), 0);
            kept = kept.into_iter().enumerate().filter(|(place, _)| !gone.contains(&(*place as u32))).map(|(_, one)| one).collect();
        }
        prop_assert_eq!(book.live(), kept.len());
        for question in &questions {
            prop_assert_eq!(found(&book, question), expected(&kept, question));
        }
        for name in NAMES {
            let mut values = BTreeSet::new();
            book.values(name, None, &mut values);
            let of_kept: BTreeSet<String> =
                kept.iter().filter_map(|(_, labels)| labels.get(name)).map(|value| (*value).to_owned()).collect();
            prop_assert_eq!(&values, &of_kept);
            let mut some = BTreeSet::new();
            book.values(name, Some(&book.find(&[])), &mut some);
            prop_assert_eq!(some, of_kept);
        }
        let mut names = BTreeSet::new();
        book.names(None, &mut names);
        let mut some = BTreeSet::new();
        book.names(Some(&book.find(&[])), &mut some);
        prop_assert_eq!(names, some);
    }
}

proptest! {
    /// In any order, of any bytes, with some deleted: what is expected next is a guess and never an answer.
    #[test]
    fn the_place_behind_the_last_changes_no_answer(
        sets in proptest::collection::vec(labels(), 1..60),
        asked in proptest::collection::vec((any::<prop::sample::Index>(), 1usize..8), 0..40),
        buried in proptest::collection::vec(any::<prop::sample::Index>(), 0..9),
    ) {
        let (mut book, kept) = book_of(&sets);
        let places: Vec<u32> = buried.iter().map(|index| index.index(kept.len()) as u32).collect();
        book.bury(&places);
        let set_of = |place: usize| {
            let mut set = Vec::new();
            book.write_set(place as u32, &mut set);
            book.fingerprint(&set)
        };
        let mut met = Met::default();
        let elsewhere = book.fingerprint(b"in other bytes");
        met.insert(elsewhere, SeriesId(5));
        for (index, run) in asked {
            let first = index.index(kept.len());
            for (place, (series, _)) in kept.iter().enumerate().skip(first).take(run) {
                let expected = (!places.contains(&(place as u32))).then_some(*series);
                prop_assert_eq!(book.look_up_next(set_of(place), &mut met), expected);
                prop_assert_eq!(book.look_up(set_of(place)), expected);
            }
            prop_assert_eq!(book.look_up_next(elsewhere, &mut met), Some(SeriesId(5)));
        }
    }
}

#[test]
fn what_is_not_shown_is_nowhere() {
    let (mut book, kept) = book_of(&[[("__name__", "up"), ("a", "1")].into()]);
    let mut sets = LabelSets::default();
    sets.push(&mut vec![("__name__", "up"), ("a", "2")], &SetLimits::default()).expect("a set");
    let mut told = Vec::new();
    let added =
        book.add(sets.get(0), SeriesId(7), &mut Vec::new(), |name, value| told.push((name.to_vec(), value.to_vec())));
    let added = added.expect("room");
    assert_eq!(told, [(b"a".to_vec(), b"2".to_vec())]);
    let up = [Matcher::equal("__name__", "up")];
    assert_eq!(found(&book, &up), expected(&kept, &up));
    assert_eq!(book.look_up(book.fingerprint(sets.get(0))), None);
    let mut values = BTreeSet::new();
    book.values("a", None, &mut values);
    assert_eq!(values.len(), 1);
    book.show([added].into_iter());
    assert_eq!(found(&book, &up).len(), 2);
    assert_eq!(book.look_up(book.fingerprint(sets.get(0))), Some(SeriesId(7)));
    assert_eq!(book.labels_at(1), [("__name__".into(), "up".into()), ("a".into(), "2".to_owned())]);
}
