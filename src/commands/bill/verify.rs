//! Whether everything fits together: the ledger with itself and its log, closed periods, exports and summaries with the ledger,
//! and all of it with what happened, rated anew and counted once more by SQL, which shares no code with the rating.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
};

use anyhow::Context;
use futures::TryStreamExt;
use orzo_export::{check, totals_of};
use orzo_model::Timestamp;
use orzo_rating::{BigDecimal, Ledger, LineFilter, LineKind, Mode, RulesOf, Totals};
use orzo_sql::Worker;
use uuid::Uuid;

use super::{
    CHANGES_PRINTED, Open, again, bar, chosen, plain,
    prices::Prices,
    recount::{Recount, Recounter, Stretch},
};
use crate::{rating::Rating, settings::Settings};

/// Costs by month, project, service and currency.
pub(super) type Sums = BTreeMap<(String, String, String, String), BigDecimal>;

/// Runs of exports that are looked at.
const RUNS_MAX: usize = 10_000;

/// The problems that there are, in words. `worker` runs a query.
pub(super) async fn verify(open: &Open, settings: &Settings, worker: Worker) -> anyhow::Result<Vec<String>> {
    let rating = &open.rating;
    let recounter = Recounter::new(open, worker);
    let mut problems = rating.ledger.verify().await?;
    corrections(rating, &mut problems).await?;
    closed(rating, &mut problems).await?;
    summed(rating, &recounter, &mut problems).await?;
    exports(rating, &settings.server.data_directory.join("exports"), &mut problems).await?;
    anew(rating, &mut problems).await?;
    priced(rating, &recounter, &mut problems).await?;
    counted(rating, &recounter, &mut problems).await?;
    Ok(problems)
}

/// Corrections fit what they correct, nothing is taken back twice, and the log says what the lines sum to.
async fn corrections(rating: &Rating, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let mut lines: HashMap<Uuid, (BigDecimal, BigDecimal)> = HashMap::new();
    let mut corrections = Vec::new();
    // The log's sum is a checksum of numbers, whatever their currencies.
    let (mut count, mut sum, mut totals) = (0_u64, BigDecimal::default(), Totals::new());
    let mut stream = rating.ledger.read(&LineFilter::default()).await?;
    while let Some(line) = stream.try_next().await? {
        count += 1;
        sum += &line.cost;
        *totals.entry(line.currency).or_default() += &line.cost;
        if let Some(of) = line.corrects {
            corrections.push((line.id, of, line.reverses, line.quantity.clone(), line.cost.clone()));
        }
        lines.insert(line.id, (line.quantity, line.cost));
    }
    let mut taken_back = HashSet::new();
    for (id, of, reverses, quantity, cost) in corrections {
        match lines.get(&of) {
            None => problems.push(format!("line {id} corrects {of}, which is not there")),
            Some((of_quantity, of_cost)) if reverses => {
                if -quantity != *of_quantity || -cost != *of_cost {
                    problems.push(format!("line {id} does not take back all of {of}"));
                }
                if !taken_back.insert(of) {
                    problems.push(format!("line {of} is taken back twice"));
                }
            }
            Some(_) => {}
        }
    }
    let by_log: i128 = rating.ledger.files().iter().filter_map(|file| file.cost.parse::<i128>().ok()).sum();
    let step = BigDecimal::new(by_log.into(), orzo_rating::COST_SCALE);
    if step != sum {
        problems.push(format!("the log says {} in all, the lines sum to {}", plain(&step), plain(&sum)));
    }
    println!("{count} lines, {} in all", priced_in(&totals));
    Ok(())
}

/// Sums as people read them.
fn priced_in(totals: &Totals) -> String {
    let each: Vec<String> = totals.iter().map(|(currency, sum)| format!("{} {currency}", plain(sum))).collect();
    each.join(", ")
}

/// Closed periods have the lines and the total that they were closed with.
async fn closed(rating: &Rating, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let periods = rating.book.closed_periods(None, Timestamp::MIN, Timestamp::MAX).await?;
    for own in &periods {
        let filter = LineFilter {
            scopes: Some(vec![own.scope_id.clone()]),
            begin: Some(own.begin),
            end: Some(own.end),
            ..LineFilter::default()
        };
        let (mut count, mut totals) = (0, Totals::new());
        let mut lines = rating.ledger.read(&filter).await?;
        while let Some(line) = lines.try_next().await? {
            count += 1;
            *totals.entry(line.currency).or_default() += line.cost;
        }
        // A bill without a line says so as nothing of one currency.
        let is_said = |totals: &Totals, of: &Totals| {
            totals.iter().all(|(code, sum)| of.get(code).map_or(*sum == 0, |of| of == sum))
        };
        if count != own.lines || !is_said(&totals, &own.totals) || !is_said(&own.totals, &totals) {
            problems.push(format!(
                "{} was closed from {} until {} with {} lines and {}; there are {count} and {}",
                own.scope_id,
                own.begin,
                own.end,
                own.lines,
                priced_in(&own.totals),
                priced_in(&totals)
            ));
        }
    }
    println!("{} closed periods held against the ledger", periods.len());
    Ok(())
}

/// The summary of CloudKitty's API and SQL say of every project, month and service what the ledger's lines sum to.
async fn summed(rating: &Rating, recounter: &Recounter, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let mut sums = Sums::new();
    let mut lines = rating.ledger.read(&LineFilter::default()).await?;
    while let Some(line) = lines.try_next().await? {
        let month: String = line.period.zulu_secs().chars().take(7).collect();
        *sums.entry((month, line.scope, line.service, line.currency)).or_default() += line.cost;
    }
    problems.extend(unlike("SQL", &recounter.sums().await?, &sums));
    let months: BTreeSet<String> = sums.keys().map(|(month, ..)| month.clone()).collect();
    let mut said = Sums::new();
    for month in months {
        let begin: Timestamp = format!("{month}-01T00:00:00Z").parse().context("a month")?;
        let end = orzo_rating::forecast::month(begin, 1);
        for ((scope, service, currency), sum) in orzo_api::summary_by_project(&rating.ledger, begin, end).await? {
            said.insert((month.clone(), scope, service, currency), sum);
        }
    }
    problems.extend(unlike("the summary", &said, &sums));
    let compared = sums.len();
    println!("{compared} sums of the summary and of SQL held against the ledger");
    Ok(())
}

/// What is not the same in two sums, in words.
pub(super) fn unlike(who: &str, said: &Sums, ours: &Sums) -> Vec<String> {
    let keys = said.keys().chain(ours.keys()).collect::<BTreeSet<_>>();
    let unlike = keys.into_iter().filter(|key| said.get(*key) != ours.get(*key)).map(|key| {
        let (month, scope, service, currency) = key;
        let (said, ours) = (said.get(key).map(plain), ours.get(key).map(plain));
        format!("{scope} {service} in {month}, {currency}: {who} says {said:?}, the lines {ours:?}")
    });
    unlike.collect()
}

/// Runs of exports are what was written, and say what the ledger says until their watermark.
async fn exports(rating: &Rating, directory: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot read {}", directory.display()))?,
    };
    let (mut held, mut cells) = (0, 0);
    for entry in entries.take(RUNS_MAX) {
        let path = entry?.path();
        // What is not whole yet begins with a point.
        if path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        let manifest = match check(&path, None) {
            Ok(manifest) => manifest,
            Err(error) => {
                problems.push(format!("export {}: {error}", path.display()));
                continue;
            }
        };
        held += 1;
        let filter = LineFilter {
            scopes: manifest.projects.clone(),
            begin: Some(manifest.begin),
            end: Some(manifest.end),
            rated_after: manifest.rated_after,
            ..LineFilter::default()
        };
        let (mut count, mut totals) = (0, BTreeMap::<String, BigDecimal>::new());
        let mut lines = rating.ledger.read(&filter).await?;
        while let Some(line) = lines.try_next().await? {
            if manifest.watermark.is_some_and(|watermark| line.rated_at <= watermark) {
                count += 1;
                *totals.entry(line.currency).or_default() += line.cost;
            }
        }
        let said: BTreeMap<String, BigDecimal> =
            manifest.totals.iter().filter_map(|(name, text)| Some((name.clone(), text.parse().ok()?))).collect();
        let is_all = manifest.left_out == 0;
        // What stands in the cells, and not what the manifest says of them.
        let read = totals_of(&path, &manifest);
        match read {
            Ok(None) => {}
            Ok(Some(read)) => {
                cells += 1;
                let sum = |of: &BTreeMap<String, BigDecimal>| of.values().sum::<BigDecimal>();
                let is_same = if read.contains_key("") { sum(&read) == sum(&said) } else { read == said };
                if !is_same {
                    let run = manifest.run;
                    problems.push(format!("export {run}: its cells sum to {read:?}, its manifest says {said:?}"));
                }
            }
            Err(error) => problems.push(error.to_string()),
        }
        if manifest.lines + manifest.left_out != count || (is_all && said != totals) {
            problems.push(format!(
                "export {} has {} lines and {:?}; until its watermark the ledger has {count} and {totals:?}",
                manifest.run, manifest.lines, manifest.totals
            ));
        }
    }
    println!("{held} exports held against the ledger, {cells} of them cell by cell");
    Ok(())
}

/// What happened, rated anew by the rules of the first time.
async fn anew(rating: &Rating, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let scopes = chosen(rating, &[]).await?;
    // What others brought in may be of any time.
    let Some(first) = first_lines(rating).await?.into_values().min() else { return Ok(()) };
    let time = (first, Timestamp::MAX);
    let report = again(rating, &scopes, time, RulesOf::Then, false).await?;
    println!("{} lines rated anew, {} differ", report.lines, report.changes.len());
    if report.unpriced > 0 {
        let first = report.findings.first().map(|own| format!("{}: {}", own.resource, own.detail)).unwrap_or_default();
        problems.push(format!("{} charges have no price, the first is {first}", report.unpriced));
    }
    for own in report.changes.iter().take(CHANGES_PRINTED) {
        problems.push(format!(
            "{} {} {} from {}: rated anew it is {}, not {}",
            own.scope,
            own.service,
            own.resource,
            own.begin.zulu_secs(),
            own.cost_after.as_ref().map_or("nothing".to_owned(), plain),
            own.cost_before.as_ref().map_or("nothing".to_owned(), plain)
        ));
    }
    Ok(())
}

/// Costs: by SQL from quantity and price of each line, and by the rules' documents.
async fn priced(rating: &Rating, recounter: &Recounter, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let wrong = recounter.priced().await?;
    let mut count = wrong.len();
    problems.extend(wrong.into_iter().take(CHANGES_PRINTED));
    let settings = rating.processor.settings();
    let period = i64::try_from(settings.period.as_secs()).ok().filter(|_| settings.mode == Mode::Exact);
    let mut prices = Prices::new(&rating.book, &rating.processor.metrics().definitions, period);
    let mut lines = rating.ledger.read(&LineFilter::default()).await?;
    while let Some(line) = lines.try_next().await? {
        let Some(problem) = prices.look(&line).await? else { continue };
        count += 1;
        if count <= CHANGES_PRINTED {
            problems.push(problem);
        }
    }
    println!(
        "{} lines held against the rules' prices, {count} differ, {} left to the rating",
        prices.compared, prices.left
    );
    Ok(())
}

/// When each project's first line of usage begins that the rating made.
async fn first_lines(rating: &Rating) -> anyhow::Result<BTreeMap<String, Timestamp>> {
    let mut firsts: BTreeMap<String, Timestamp> = BTreeMap::new();
    let mut lines = rating.ledger.read(&LineFilter::default()).await?;
    while let Some(line) = lines.try_next().await? {
        if line.kind == LineKind::Usage && line.rule.starts_with("hashmap/") {
            let first = firsts.entry(line.scope).or_insert(line.begin);
            *first = line.begin.min(*first);
        }
    }
    Ok(firsts)
}

/// Usage, counted by SQL.
async fn counted(rating: &Rating, recounter: &Recounter, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let settings = rating.processor.settings();
    let firsts = first_lines(rating).await?;
    let (Some(first), Mode::Exact) = (firsts.values().min(), settings.mode) else { return Ok(()) };
    let definitions = &rating.processor.metrics().definitions;
    let scopes = chosen(rating, &[]).await?;
    let bar = bar((scopes.len() * definitions.len()) as u64)?;
    let (mut whole, mut differ) = (Recount::default(), 0);
    for scope in scopes {
        bar.set_message(scope.clone());
        let Some(state) = rating.book.scope(&scope).await? else { continue };
        // Nothing is asked about the time before the project was there.
        let sign = rating.processor.first_sign(&scope).await?;
        let from = firsts.get(&scope).copied().into_iter().chain(sign).min().unwrap_or(*first).max(*first);
        let from = from.floor(settings.period);
        let stretch = Stretch { scope: &scope, from, until: state.rated_until, period: settings.period };
        let own = recounter.usage(&stretch, definitions, || bar.inc(1)).await?;
        whole.lasting += own.lasting;
        whole.measured_lines += own.measured_lines;
        for (why, lines) in own.left {
            *whole.left.entry(why).or_default() += lines;
        }
        differ += own.problems.len();
        problems.extend(own.problems.into_iter().take(CHANGES_PRINTED));
    }
    bar.finish_and_clear();
    println!(
        "{} resources and periods counted again from events, {differ} differ; {} lines counted again from points",
        whole.lasting, whole.measured_lines
    );
    for (why, lines) in whole.left {
        println!("{lines} lines not counted again: {why}");
    }
    Ok(())
}
