//! Trusts for `trust+http(s)`, `trust+zaqar` and `trust+heat` actions: made from the caller's token before the alarm is
//! written, so that its notices can be sent in the caller's name. The notifier ends them when no alarm names them.

use http::HeaderMap;
use orzo_alarms::{Action, AlarmRequest, Trust, with_trust};

use super::{book, problem_of, problem_of_door};
use crate::{
    SharedApi,
    authenticate::{Credential, credential},
    problem::Problem,
};

/// Writes the id of a new trust into the actions that want one: one trust for all of them.
pub(super) async fn make(api: &SharedApi, headers: &HeaderMap, request: &mut AlarmRequest) -> Result<(), Problem> {
    let lists = [&request.ok_actions, &request.alarm_actions, &request.insufficient_data_actions];
    if !lists.iter().any(|actions| actions.iter().any(|action| wants_trust(action))) {
        return Ok(());
    }
    let cloud = api.deliverer.as_ref().and_then(|deliverer| deliverer.cloud());
    let cloud = cloud.ok_or_else(|| Problem::bad("actions with a trust are not served here"))?;
    let token = match credential(headers) {
        Some(Credential::Token(token)) if !api.settings.alarming_noauth => token,
        _ => return Err(Problem::bad("actions with a trust need a request with a token")),
    };
    let trust_id = cloud.make_trust(&token).await.map_err(problem_of_door)?;
    book(api)?.remember_trust(&trust_id).await.map_err(problem_of)?;
    let lists = [&mut request.ok_actions, &mut request.alarm_actions, &mut request.insufficient_data_actions];
    for action in lists.into_iter().flatten().filter(|action| wants_trust(action)) {
        *action = with_trust(action, &trust_id);
    }
    Ok(())
}

fn wants_trust(action: &str) -> bool {
    Action::parse(action).is_ok_and(|action| *action.trust() == Trust::Wanted)
}
