//! Walking through a service's list page by page, within bounds. Pure.

use serde_json::Value;

/// Entries asked for at once; services cut it to their own limit (Glance and Cinder: 1000).
const PAGE_ENTRIES: usize = 500;
/// Entries of one list at most.
const ENTRIES_MAX: usize = 200_000;

/// Where we are in a list. The next page starts after the last entry of this one (`marker`), which both Glance and
/// Cinder understand; the links they give may name hosts that we cannot reach.
pub(super) struct Pages {
    path: &'static str,
    list: &'static str,
    marker: Option<String>,
    is_done: bool,
    seen: usize,
}

impl Pages {
    /// The list called `list` at `path` (which has a query already).
    pub(super) fn new(path: &'static str, list: &'static str) -> Self {
        Self { path, list, marker: None, is_done: false, seen: 0 }
    }

    /// Path of the next page; `None` at the end.
    pub(super) fn next_path(&self) -> Option<String> {
        if self.is_done {
            return None;
        }
        let marker = self.marker.as_ref().map(|marker| format!("&marker={marker}")).unwrap_or_default();
        Some(format!("{}&limit={PAGE_ENTRIES}{marker}", self.path))
    }

    /// The entries of a page.
    pub(super) fn take<'a>(&mut self, answer: &'a Value) -> &'a [Value] {
        let entries = answer[self.list].as_array().map(Vec::as_slice).unwrap_or_default();
        self.seen += entries.len();
        let has_next = answer.get("next").is_some_and(Value::is_string)
            || answer.get(format!("{}_links", self.list)).is_some_and(has_next);
        let marker = entries.last().and_then(|entry| entry["id"].as_str()).filter(|id| is_plain(id));
        // A service that sends the same last entry again would keep us here for ever.
        self.is_done = !has_next || marker.is_none() || self.marker.as_deref() == marker || self.is_cut();
        self.marker = marker.map(str::to_owned);
        entries
    }

    /// The list is longer than we read.
    pub(super) fn is_cut(&self) -> bool {
        self.seen >= ENTRIES_MAX
    }
}

fn has_next(links: &Value) -> bool {
    links.as_array().is_some_and(|links| links.iter().any(|link| link["rel"] == "next"))
}

/// An id that can stand in a query as it is.
fn is_plain(id: &str) -> bool {
    !id.is_empty() && id.len() <= 255 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pages_follow_the_last_entry_and_end() {
        let mut pages = Pages::new("v2/images?visibility=all", "images");
        assert_eq!(pages.next_path().as_deref(), Some("v2/images?visibility=all&limit=500"));
        let page = json!({"images": [{"id": "a"}, {"id": "b"}], "next": "/v2/images?marker=b"});
        assert_eq!(pages.take(&page).len(), 2);
        assert_eq!(pages.next_path().as_deref(), Some("v2/images?visibility=all&limit=500&marker=b"));
        assert_eq!(pages.take(&json!({"images": [{"id": "c"}]})).len(), 1);
        assert_eq!(pages.next_path(), None);

        let mut pages = Pages::new("volumes/detail?all_tenants=true", "volumes");
        let page = json!({"volumes": [{"id": "a"}], "volumes_links": [{"rel": "next", "href": "http://inside/"}]});
        pages.take(&page);
        assert!(pages.next_path().expect("there is more").ends_with("&marker=a"));
        pages.take(&page);
        assert_eq!(pages.next_path(), None, "the same page again is the end");
    }

    #[test]
    fn an_id_that_would_change_the_query_is_not_sent_back() {
        let mut pages = Pages::new("v2/images?x", "images");
        pages.take(&json!({"images": [{"id": "a&admin=1"}], "next": "/"}));
        assert_eq!(pages.next_path(), None);
    }
}
