//! Roles that imply one another, as Keystone's bootstrap makes them: admin → manager → member → reader. Pure.

/// Made at the first start; they cannot be changed or deleted, because the services' policies speak of them.
pub(crate) const BUILT_IN: &[&str] = &["admin", "manager", "member", "reader", "service"];

/// Each implies the next.
const CHAIN: &[&str] = &["admin", "manager", "member", "reader"];

/// A role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// The role that this one implies directly.
pub(crate) fn implied_by(name: &str) -> Option<&'static str> {
    let place = CHAIN.iter().position(|role| *role == name)?;
    CHAIN.get(place + 1).copied()
}

/// Those of `all` that are assigned or implied by one that is.
pub(crate) fn effective(all: &[Role], is_assigned: impl Fn(&Role) -> bool) -> Vec<Role> {
    let mut names: Vec<&str> = all.iter().filter(|role| is_assigned(role)).map(|role| role.name.as_str()).collect();
    let mut place = 0;
    while let Some(name) = names.get(place) {
        if let Some(implied) = implied_by(name)
            && !names.contains(&implied)
        {
            names.push(implied);
        }
        place += 1;
    }
    all.iter().filter(|role| names.contains(&role.name.as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_brings_all_below_it_and_none_above() {
        let all: Vec<Role> = ["reader", "admin", "manager", "member", "service", "own"]
            .map(|n| Role { id: n.into(), name: n.into() })
            .into();
        let names = |assigned: &[&str]| -> Vec<String> {
            effective(&all, |role| assigned.contains(&role.id.as_str())).into_iter().map(|role| role.name).collect()
        };
        assert_eq!(names(&["admin"]), ["reader", "admin", "manager", "member"]);
        assert_eq!(names(&["member", "service"]), ["reader", "member", "service"]);
        assert_eq!(names(&["own"]), ["own"]);
        assert!(names(&[]).is_empty());
    }
}
