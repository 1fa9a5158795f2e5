//! Which meters a source means: shell patterns with Ceilometer's rule of exclusion.

use globset::{GlobBuilder, GlobMatcher};

/// A set of meters by patterns (`disk.*`, `!cpu`).
#[derive(Clone, Debug, Default)]
pub struct MeterSelection {
    included: Vec<GlobMatcher>,
    excluded: Vec<GlobMatcher>,
}

impl MeterSelection {
    /// Adds a pattern; with `!` before it, it excludes.
    pub fn add(&mut self, pattern: &str) -> Result<(), String> {
        match pattern.strip_prefix('!') {
            Some(pattern) => self.excluded.push(glob(pattern)?),
            None => self.included.push(glob(pattern)?),
        }
        Ok(())
    }

    /// What is excluded is out; what is included is in; where only exclusions are given, all the rest is in.
    pub fn includes(&self, meter: &str) -> bool {
        let matches = |patterns: &[GlobMatcher]| patterns.iter().any(|pattern| pattern.is_match(meter));
        !matches(&self.excluded) && (matches(&self.included) || self.included.is_empty())
    }
}

/// Python's `fnmatch` knows `*`, `?` and `[...]`; braces and backslashes are plain characters there.
fn glob(pattern: &str) -> Result<GlobMatcher, String> {
    let literal = pattern.replace('{', "[{]").replace('}', "[}]");
    GlobBuilder::new(&literal)
        .literal_separator(false)
        .backslash_escape(false)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| format!("`{pattern}` is not a pattern: {}", error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(patterns: &[&str]) -> MeterSelection {
        let mut selection = MeterSelection::default();
        for pattern in patterns {
            selection.add(pattern).unwrap();
        }
        selection
    }

    #[test]
    fn patterns_as_fnmatch() {
        let included = |pattern: &str, meter: &str| selection(&[pattern]).includes(meter);
        assert!(included("*", "disk.device.read.bytes"));
        assert!(included("disk.*.bytes", "disk.device.read.bytes"), "a star crosses dots");
        assert!(included("cp?", "cpu") && !included("cp?", "cp"));
        assert!(included("[ab]", "a") && !included("[!ab]", "a") && included("[!ab]", "c"));
        assert!(included("a{b,c}", "a{b,c}") && !included("a{b,c}", "ab"), "braces are plain");
        assert!(!included("cpu", "cpu.util"), "the whole name must match");
    }

    #[test]
    fn exclusion_wins_and_implies_the_rest() {
        assert!(!selection(&["*", "!cpu"]).includes("cpu"));
        assert!(selection(&["*", "!cpu"]).includes("memory"));
        assert!(selection(&["!cpu"]).includes("memory"));
        assert!(!selection(&["memory"]).includes("cpu"));
    }
}
