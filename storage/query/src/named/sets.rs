//! Label sets of one project, or of all of them for an operator's token: then each carries its owner as `project_id`, so
//! that sets that are alike in two projects stay two series, and can be told apart and summed by owner.
//!
//! A label `project_id` that a sender gave is shown as `exported_project_id` there, as Prometheus does with labels that a
//! target may not set. Pure but for the label index, which answers from memory.

use std::{collections::BTreeSet, sync::Arc};

use orzo_labels::{LabelIndex, SharedLabels};
use orzo_model::{Scope, SeriesId};
use orzo_promql::{Labels, MatcherGroup, Operator};

use super::{
    label_group, label_matchers,
    memory::{Memory, Named},
};
use crate::{
    QueryError,
    native::{book_of, project_of},
};

/// The label that names the owner.
const OWNER: &str = "project_id";
/// What a sender's own label of that name is called then.
const EXPORTED_OWNER: &str = "exported_project_id";

/// The label sets within a scope.
pub(super) struct Sets<'a> {
    pub(super) labels: &'a LabelIndex,
    pub(super) scope: &'a Scope,
    /// What was found before.
    pub(super) memory: &'a Memory,
}

impl Sets<'_> {
    /// Series of numbers whose labels all matchers accept, at most `limit`, in any order.
    pub(super) fn find(&self, group: &MatcherGroup, limit: usize) -> Result<Vec<(SeriesId, Labels)>, QueryError> {
        self.find_in(group, limit, false)
    }

    /// Series of native histograms.
    pub(super) fn find_native(
        &self,
        group: &MatcherGroup,
        limit: usize,
    ) -> Result<Vec<(SeriesId, Labels)>, QueryError> {
        self.find_in(group, limit, true)
    }

    fn find_in(
        &self,
        group: &MatcherGroup,
        limit: usize,
        is_native: bool,
    ) -> Result<Vec<(SeriesId, Labels)>, QueryError> {
        let of = |project: &str| if is_native { book_of(project) } else { project.to_owned() };
        if *self.scope != Scope::All {
            let Some(own) = self.project() else { return Ok(Vec::new()) };
            return Ok(self.find_in_book(&of(own), group, limit)?.to_vec());
        }
        let mut found = Vec::new();
        for project in self.projects() {
            let Some(rest) = within(group, &project) else { continue };
            let left = limit.saturating_sub(found.len());
            let sets = self.labels.find_shared(&Scope::Project(of(&project)), &label_group(&rest)?, left);
            found.extend(sets.into_iter().map(|(series, labels)| (series, owned(&labels, &project))));
        }
        Ok(found)
    }

    /// From memory, if nothing has changed; dashboards ask the same again and again.
    fn find_in_book(&self, book: &str, group: &MatcherGroup, limit: usize) -> Result<Named, QueryError> {
        // Looked at before what it is about.
        let Some(version) = self.labels.version(book) else { return Ok(Arc::default()) };
        let selector = text_of(group);
        if let Some(found) = self.memory.sets(book, &selector, version).filter(|found| found.len() < limit) {
            return Ok(found);
        }
        let found = self.labels.find_shared(&Scope::Project(book.to_owned()), &label_group(group)?, limit);
        let is_whole = found.len() < limit;
        let found: Vec<(SeriesId, Labels)> =
            found.into_iter().map(|(series, labels)| (series, Labels::from_sorted(labels))).collect();
        let found = Named::new(found);
        if is_whole {
            self.memory.keep_sets(book, selector, version, found.clone());
        }
        Ok(found)
    }

    /// Whose label sets are seen, if one project's are.
    fn project(&self) -> Option<&str> {
        match self.scope {
            Scope::Project(project) | Scope::Owner(project) | Scope::Maker(project) => Some(project),
            Scope::All | Scope::Creator(_) | Scope::Nothing => None,
        }
    }

    /// All projects with label sets, of numbers or of histograms.
    fn projects(&self) -> Vec<Arc<str>> {
        let names = self.labels.projects().into_iter();
        let mut projects: Vec<Arc<str>> = names.map(|name| project_of(&name).map_or(name.clone(), Arc::from)).collect();
        projects.sort_unstable();
        projects.dedup();
        projects
    }

    /// The scopes that have label sets to delete.
    pub(super) fn scopes(&self) -> Vec<Scope> {
        let books = self.project().map(|project| Scope::Project(book_of(project)));
        [Some(self.scope.clone()), books].into_iter().flatten().collect()
    }

    /// Names of labels; of all series if no group is given.
    pub(super) fn names(&self, groups: &[MatcherGroup]) -> Result<BTreeSet<String>, QueryError> {
        let mut names = BTreeSet::new();
        for (scopes, _, groups) in self.choices(groups) {
            for scope in scopes {
                names.extend(self.labels.label_names(&scope, &label_matchers(&groups)?));
            }
        }
        if *self.scope == Scope::All && !names.is_empty() && !names.insert(OWNER.to_owned()) {
            names.insert(EXPORTED_OWNER.to_owned());
        }
        Ok(names)
    }

    /// Values of a label; of all series if no group is given.
    pub(super) fn values(&self, name: &str, groups: &[MatcherGroup]) -> Result<BTreeSet<String>, QueryError> {
        let mut values = BTreeSet::new();
        for (scopes, project, groups) in self.choices(groups) {
            let matchers = label_matchers(&groups)?;
            for scope in scopes {
                match &project {
                    Some(project) if name == OWNER => {
                        // Whoever has a name has a series.
                        if !self.labels.label_names(&scope, &matchers).is_empty() {
                            values.insert(project.to_string());
                        }
                    }
                    Some(_) if name == EXPORTED_OWNER => {
                        values.extend(self.labels.label_values(&scope, OWNER, &matchers));
                    }
                    _ => values.extend(self.labels.label_values(&scope, name, &matchers)),
                }
            }
        }
        Ok(values)
    }

    /// What is to be asked of which project; of all projects those that no group leaves out.
    fn choices(&self, groups: &[MatcherGroup]) -> Vec<Choice> {
        let both = |project: &str| [Scope::Project(project.to_owned()), Scope::Project(book_of(project))];
        if *self.scope != Scope::All {
            return self.project().map(|project| (both(project), None, groups.to_vec())).into_iter().collect();
        }
        let of = |project: Arc<str>| {
            let own: Vec<MatcherGroup> = groups.iter().filter_map(|group| within(group, &project)).collect();
            let is_asked = groups.is_empty() || !own.is_empty();
            is_asked.then(|| (both(&project), Some(project), own))
        };
        self.projects().into_iter().filter_map(of).collect()
    }
}

/// Books to look into, whose they are if that is to be told, and what is asked of them.
type Choice = ([Scope; 2], Option<Arc<str>>, Vec<MatcherGroup>);

/// A group as a text that no other group has: each part stands behind its length.
fn text_of(group: &MatcherGroup) -> String {
    let mut text = String::with_capacity(64);
    for matcher in group {
        let operator = match matcher.operator {
            Operator::Equal => "=",
            Operator::NotEqual => "!=",
            Operator::Matches(_) => "=~",
            Operator::MatchesNot(_) => "!~",
        };
        for part in [&matcher.name, operator, &matcher.value] {
            text.push_str(&part.len().to_string());
            text.push(':');
            text.push_str(part);
        }
    }
    text
}

/// What is left to ask of a project's series; nothing if the group is about others.
fn within(group: &MatcherGroup, project: &str) -> Option<MatcherGroup> {
    let (owner, rest): (Vec<_>, Vec<_>) = group.iter().cloned().partition(|matcher| matcher.name == OWNER);
    let rest = rest.into_iter().map(|mut matcher| {
        if matcher.name == EXPORTED_OWNER {
            matcher.name = OWNER.to_owned();
        }
        matcher
    });
    owner.iter().all(|matcher| matcher.is_match(project)).then(|| rest.collect())
}

fn owned(labels: &SharedLabels, project: &Arc<str>) -> Labels {
    let renamed = |name: &Arc<str>| if &**name == OWNER { EXPORTED_OWNER.into() } else { name.clone() };
    let pairs = labels.iter().map(|(name, value)| (renamed(name), value.clone()));
    Labels::new(pairs.chain([(Arc::from(OWNER), project.clone())]))
}
