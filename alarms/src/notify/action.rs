//! Where a notice goes, as an alarm names it: a URL whose scheme chooses the way.
//!
//! In: the text of an action, from a tenant (checked) or from the book (trusted). Out: an [`Action`] to deliver to. It
//! knows no network; addresses are checked where the connection is made.

use url::Url;

/// Longer URLs break on the way.
const URL_BYTES_MAX: usize = 2048;
/// A name of a queue or topic; RabbitMQ takes 255 bytes for the whole routing key.
const NAME_BYTES_MAX: usize = 64;
/// Subscribers of a Zaqar queue that one action may name; each is a request per notice.
const SUBSCRIBERS_MAX: usize = 8;
/// Aodh's default life of a subscription.
const SUBSCRIPTION_TTL_S: u64 = 3600;
/// Marks the part before a host as an id of a trust that is ours, as Aodh writes it.
const TRUST_MARK: &str = ":delete@";

/// Where a notice goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// POST to this URL; with a trust, with a token in the name of the alarm's owner.
    Webhook {
        /// http or https, without credentials.
        url: Url,
        /// The trust for the token.
        trust: Trust,
    },
    /// A message to a queue of the messaging service (Zaqar).
    Zaqar {
        /// Which queue.
        queue: ZaqarQueue,
        /// Who is told of the queue's messages.
        subscribers: Vec<String>,
        /// How long the subscription and the message live, in seconds.
        ttl_s: u64,
        /// Whose queue: the owner's with a trust, this service's without.
        trust: Trust,
    },
    /// Members of a load balancer that are unhealthy are told to the orchestration service (Heat).
    Heat {
        /// The trust for the token.
        trust: Trust,
    },
    /// Alerts for Alertmanager's API v2 below this URL.
    Alertmanager(Url),
    /// A message on the bus; for administrators only.
    Topic(String),
    /// A line in the log; for administrators only.
    Log,
    /// Nothing at all; for administrators only (Aodh's own tests use it).
    Test,
}

/// In whose name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Nobody's, or this service's own.
    None,
    /// The owner's; the trust is not made yet.
    Wanted,
    /// The owner's, by this trust.
    Made(String),
}

/// A queue's name, or what to make it from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZaqarQueue {
    /// `<alarm id>-<topic>`, made when it is needed.
    Topic(String),
    /// A queue that is there.
    Named(String),
}

/// Why an action is refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ActionError {
    /// Too long.
    #[error("an action is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// Not a URL.
    #[error("Unable to parse action {action}: {reason}")]
    Unreadable {
        /// The text.
        action: String,
        /// What is wrong.
        reason: String,
    },
    /// Another scheme.
    #[error("Unsupported action {action}")]
    Unsupported {
        /// The text.
        action: String,
    },
    /// User or password in the URL.
    #[error("an action URL must not carry credentials")]
    Credentials,
    /// An id of a trust that the caller wrote: it could be anybody's (CVE-2017-12440).
    #[error("trust URL cannot contain a trust ID.")]
    TrustId,
    /// For administrators only.
    #[error("You are not authorized to create action: {action}")]
    NotAllowed {
        /// The text.
        action: String,
    },
}

impl Action {
    /// Reads an action as the book keeps it: a trust's id may be in it.
    pub fn parse(text: &str) -> Result<Self, ActionError> {
        if text.len() > URL_BYTES_MAX {
            return Err(ActionError::TooLong);
        }
        let unreadable = |reason: &str| ActionError::Unreadable { action: scrubbed(text), reason: reason.to_owned() };
        let Some((scheme, rest)) = text.split_once(':') else { return Err(unreadable("no scheme")) };
        let scheme = scheme.to_ascii_lowercase();
        let (trust, plain) = match scheme.strip_prefix("trust+") {
            None => (Trust::None, rest.to_owned()),
            Some(_) => match split_trust(rest) {
                (None, plain) => (Trust::Wanted, plain),
                (Some(id), plain) => (Trust::Made(id), plain),
            },
        };
        let web = |kind: &str| web_url(kind, &plain).map_err(|error| error.of(text));
        match scheme.as_str() {
            "http" | "https" | "trust+http" | "trust+https" => {
                Ok(Self::Webhook { url: web(scheme.trim_start_matches("trust+"))?, trust })
            }
            "zaqar" | "trust+zaqar" => zaqar(&plain, trust).map_err(|reason| unreadable(&reason)),
            "trust+heat" => Ok(Self::Heat { trust }),
            "alertmanager+http" | "alertmanager+https" => {
                Ok(Self::Alertmanager(web(scheme.trim_start_matches("alertmanager+"))?))
            }
            "topic" => {
                let name = plain.trim_start_matches('/');
                if !is_name(name) {
                    let reason = format!("a topic has 1 to {NAME_BYTES_MAX} letters, digits, dots, - and _");
                    return Err(unreadable(&reason));
                }
                Ok(Self::Topic(name.to_owned()))
            }
            "log" => Ok(Self::Log),
            "test" => Ok(Self::Test),
            _ => Err(ActionError::Unsupported { action: scrubbed(text) }),
        }
    }

    /// Reads an action that a caller asks for; `is_operator` may use the log and the bus.
    pub fn check(text: &str, is_operator: bool) -> Result<Self, ActionError> {
        let action = Self::parse(text)?;
        if matches!(action.trust(), Trust::Made(_)) {
            return Err(ActionError::TrustId);
        }
        if !is_operator && matches!(action, Self::Topic(_) | Self::Log | Self::Test) {
            return Err(ActionError::NotAllowed { action: text.to_owned() });
        }
        Ok(action)
    }

    /// In whose name it is done.
    pub fn trust(&self) -> &Trust {
        match self {
            Self::Webhook { trust, .. } | Self::Zaqar { trust, .. } | Self::Heat { trust } => trust,
            Self::Alertmanager(_) | Self::Topic(_) | Self::Log | Self::Test => &Trust::None,
        }
    }

    /// The name under which one receiver's failures are counted: the URL without query, or the kind.
    pub fn receiver(&self) -> String {
        let bare = |url: &Url| {
            let mut url = url.clone();
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        };
        match self {
            Self::Webhook { url, .. } => bare(url),
            Self::Alertmanager(url) => format!("alertmanager+{}", bare(url)),
            Self::Zaqar { .. } => "zaqar".to_owned(),
            Self::Heat { .. } => "heat".to_owned(),
            Self::Topic(name) => format!("topic:{name}"),
            Self::Log => "log".to_owned(),
            Self::Test => "test".to_owned(),
        }
    }
}

/// The text of an action without the id of its trust: what anybody may read.
pub fn scrubbed(action: &str) -> String {
    match action.split_once(':') {
        Some((scheme, rest)) if scheme.to_ascii_lowercase().starts_with("trust+") => {
            format!("{scheme}:{}", split_trust(rest).1)
        }
        _ => action.to_owned(),
    }
}

/// The text of an action with the id of its trust. The text was read by [`Action::check`] before.
pub fn with_trust(action: &str, trust_id: &str) -> String {
    match action.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{trust_id}{TRUST_MARK}{rest}"),
        None => action.to_owned(),
    }
}

/// The id of the trust in `//ID:delete@host/path`, and the same without it.
fn split_trust(rest: &str) -> (Option<String>, String) {
    let Some(after) = rest.strip_prefix("//") else { return (None, rest.to_owned()) };
    let end = after.find(['/', '?', '#', '\\']).unwrap_or(after.len());
    let (authority, path) = after.split_at(end);
    match authority.rsplit_once('@') {
        None => (None, rest.to_owned()),
        Some((id, host)) => {
            let id = id.split(':').next().unwrap_or_default();
            (Some(id.to_owned()), format!("//{host}{path}"))
        }
    }
}

/// Why a URL is none, before it is known whose text it was.
enum NotWeb {
    Credentials,
    Other(String),
}

impl NotWeb {
    fn of(self, text: &str) -> ActionError {
        match self {
            Self::Credentials => ActionError::Credentials,
            Self::Other(reason) => ActionError::Unreadable { action: scrubbed(text), reason },
        }
    }
}

fn web_url(scheme: &str, rest: &str) -> Result<Url, NotWeb> {
    let url = Url::parse(&format!("{scheme}:{rest}")).map_err(|error| NotWeb::Other(error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(NotWeb::Credentials);
    }
    match url.host_str() {
        None | Some("") => Err(NotWeb::Other("no host".to_owned())),
        Some(_) => Ok(url),
    }
}

fn zaqar(rest: &str, trust: Trust) -> Result<Action, String> {
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    let mut topic = None;
    let mut named = None;
    let mut subscribers = Vec::new();
    let mut ttl_s = SUBSCRIPTION_TTL_S;
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match key.as_ref() {
            "topic" => topic = Some(value.into_owned()),
            "queue_name" => named = Some(value.into_owned()),
            "subscriber" => subscribers.push(value.into_owned()),
            "ttl" => ttl_s = value.parse().map_err(|_| format!("ttl `{value}` is not a number of seconds"))?,
            _ => {}
        }
    }
    if subscribers.len() > SUBSCRIBERS_MAX {
        return Err(format!("at most {SUBSCRIBERS_MAX} subscribers"));
    }
    let queue = match (named, topic) {
        (Some(name), _) if is_name(&name) => ZaqarQueue::Named(name),
        // With the alarm's id before it, the name has room for less.
        (None, Some(topic)) if is_name(&topic) && topic.len() <= NAME_BYTES_MAX - 37 => ZaqarQueue::Topic(topic),
        (None, None) => return Err("a topic or queue_name is needed".to_owned()),
        _ => return Err("the name of a queue or topic has letters, digits, - and _, and is short".to_owned()),
    };
    Ok(Action::Zaqar { queue, subscribers, ttl_s, trust })
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Action::check(text, false).expect_err(text).to_string()
    }

    #[test]
    fn every_scheme_is_read() {
        for text in [
            "http://203.0.113.7/hook",
            "HTTPS://example.org/hook?key=1",
            "trust+https://heat.example.org/v1/p/stacks/s/i/resources/r/signal",
            "zaqar://?topic=critical&subscriber=http://203.0.113.7/&subscriber=mailto:a@example.org&ttl=60",
            "trust+zaqar://?queue_name=mine",
            "trust+heat://",
            "alertmanager+http://203.0.113.7:9093/prefix",
        ] {
            Action::check(text, false).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        for text in ["log://", "log:", "test://", "topic://pager"] {
            Action::check(text, true).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(refusal(text).starts_with("You are not authorized to create action"), "{text}");
        }
        let zaqar = Action::parse("zaqar://?topic=critical&subscriber=a&subscriber=b&ttl=60").expect("zaqar");
        let Action::Zaqar { queue, subscribers, ttl_s, trust } = zaqar else { panic!("not zaqar") };
        assert_eq!((queue, subscribers.len(), ttl_s), (ZaqarQueue::Topic("critical".into()), 2, 60));
        assert_eq!(trust, Trust::None);
    }

    #[test]
    fn wrong_actions_are_told() {
        assert!(refusal("ftp://h/").contains("Unsupported action ftp"));
        assert!(refusal("file:///etc/passwd").contains("Unsupported action file"));
        assert!(refusal("nothing").contains("no scheme"));
        assert!(refusal("http://").contains("Unable to parse action http://"));
        assert!(refusal("http://u:p@h/").contains("credentials"));
        assert!(refusal("alertmanager+http://u@h/").contains("credentials"));
        assert!(refusal("zaqar://").contains("topic or queue_name"));
        assert!(refusal("zaqar://?topic=a%20b").contains("letters"));
        assert!(refusal("zaqar://?topic=a&ttl=soon").contains("ttl"));
        assert!(refusal(&format!("http://h/{}", "x".repeat(URL_BYTES_MAX))).contains("longer"));
        assert!(Action::check("topic://a b", true).is_err());
    }

    #[test]
    fn a_trust_is_ours_to_write_and_nobodys_to_read() {
        let plain = "trust+https://heat.example.org:8004/v1/a@b?x=1";
        assert_eq!(Action::check(plain, false).map(|action| action.trust().clone()), Ok(Trust::Wanted));
        let kept = with_trust(plain, "0123");
        assert_eq!(kept, "trust+https://0123:delete@heat.example.org:8004/v1/a@b?x=1");
        assert_eq!(Action::check(&kept, true), Err(ActionError::TrustId));
        let Ok(Action::Webhook { url, trust }) = Action::parse(&kept) else { panic!("not a webhook") };
        assert_eq!(url.as_str(), "https://heat.example.org:8004/v1/a@b?x=1");
        assert_eq!(trust, Trust::Made("0123".into()));
        assert_eq!(scrubbed(&kept), plain);
        assert_eq!(scrubbed(plain), plain);
        assert_eq!(scrubbed(&with_trust("trust+zaqar://?queue_name=q", "1")), "trust+zaqar://?queue_name=q");
        assert_eq!(refusal("trust+http://0123@h/"), "trust URL cannot contain a trust ID.");
        assert_eq!(refusal("trust+http://a:b@evil@h/"), "trust URL cannot contain a trust ID.");
        // A webhook's own text is never touched.
        assert_eq!(scrubbed("http://h/?q=trust+http://1:delete@h"), "http://h/?q=trust+http://1:delete@h");
    }

    #[test]
    fn receivers_are_told_apart_without_their_query() {
        let receiver = |text: &str| Action::parse(text).expect(text).receiver();
        assert_eq!(receiver("https://h/a?token=1#x"), "https://h/a");
        assert_eq!(receiver("trust+https://1:delete@h/a?token=2"), "https://h/a");
        assert_eq!(receiver("topic://pager"), "topic:pager");
        assert_ne!(receiver("https://h/a"), receiver("https://h/b"));
    }
}
