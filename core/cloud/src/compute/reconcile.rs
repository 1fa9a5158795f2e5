//! Compares what the database says with what the hypervisor says, and mends the difference.
//!
//! As Nova's `_sync_power_states`: the user's last word counts for a guest that runs against it, the hypervisor's for
//! one that died. At the start, guests that are gone although they should run (the simulated ones, after a restart)
//! are made again.

use std::{collections::HashMap, error::Error, sync::Arc};

use orzo_hypervisor::PowerState;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Compute, Edit,
    error::ComputeError,
    server::{SELECT, Server, TaskState, VmState, power_number},
};

/// What is to be done about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mend {
    /// It died or was switched off from inside: it is off.
    IsOff,
    /// It runs although the user stopped it: stop it again.
    StopIt,
    /// Only the number differs.
    Power,
}

/// Pure: what the states mean together.
fn judge(vm_state: VmState, recorded: i64, actual: Option<PowerState>) -> Option<Mend> {
    match (vm_state, actual) {
        (VmState::Active, Some(PowerState::ShutOff | PowerState::Crashed)) => Some(Mend::IsOff),
        (VmState::Stopped, Some(PowerState::Running | PowerState::Blocked)) => Some(Mend::StopIt),
        // A stopped guest may be gone from the hypervisor until it is started again.
        (VmState::Stopped, None) => None,
        // So may one that was off when it got another size.
        (VmState::Resized, None) if recorded == power_number(Some(PowerState::ShutOff)) => None,
        (VmState::Active | VmState::Stopped | VmState::Resized, actual) if power_number(actual) != recorded => {
            Some(Mend::Power)
        }
        _ => None,
    }
}

impl Compute {
    pub(super) async fn run_reconcile(self: Arc<Self>, stop: CancellationToken) {
        let mut restored = false;
        loop {
            let pass = async {
                if !restored {
                    self.restore().await?;
                }
                restored = true;
                self.reconcile().await
            };
            tokio::select! {
                () = stop.cancelled() => return,
                outcome = pass => if let Err(error) = outcome {
                    tracing::warn!(error = &error as &dyn Error, "power states cannot be compared, trying again");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(self.settings.reconcile_period) => {}
            }
        }
    }

    /// Guests that should run and are not there are made again.
    pub(super) async fn restore(self: &Arc<Self>) -> Result<(), ComputeError> {
        let present = self.guests().await?;
        for server in self.settled_servers().await? {
            if !server.is_meant_to_run() || present.contains_key(&server.id) {
                continue;
            }
            if self.hypervisor.state(server.id).await?.is_none() {
                tracing::info!(server = %server.id, "the guest is gone and is made again");
                if let Err(error) = self.ensure_guest(&server).await {
                    tracing::error!(error = &error as &dyn Error, server = %server.id, "the guest cannot be made again");
                }
            }
        }
        Ok(())
    }

    pub(super) async fn reconcile(self: &Arc<Self>) -> Result<(), ComputeError> {
        let servers = self.settled_servers().await?;
        if servers.is_empty() {
            return Ok(());
        }
        let guests = self.guests().await?;
        for seen in servers {
            let actual = match guests.get(&seen.id) {
                Some(state) => *state,
                // The bulk call may leave out guests that are off.
                None => self.hypervisor.state(seen.id).await?,
            };
            let Some(mend) = judge(seen.vm_state, seen.power_state, actual) else { continue };
            let power_state = power_number(actual);
            let outcome = self
                .change(seen.id, move |server, _| {
                    // Something happened since we looked: the next round sees it.
                    if server.updated_at != seen.updated_at || server.task_state.is_some() {
                        return Ok(None);
                    }
                    server.power_state = power_state;
                    let edit = Edit::for_owner(server);
                    Ok(Some(match mend {
                        Mend::Power => edit,
                        Mend::IsOff => {
                            server.vm_state = VmState::Stopped;
                            edit.note("power_off.start", json!({})).note("power_off.end", json!({}))
                        }
                        Mend::StopIt => {
                            server.task_state = Some(TaskState::PoweringOff);
                            edit.note("power_off.start", json!({}))
                        }
                    }))
                })
                .await;
            match outcome {
                Ok(Some(server)) => {
                    tracing::info!(server = %server.id, ?mend, "the hypervisor knew otherwise");
                }
                Ok(None) | Err(ComputeError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// By one bulk call.
    async fn guests(&self) -> Result<HashMap<Uuid, Option<PowerState>>, ComputeError> {
        let stats = self.hypervisor.stats().await?;
        Ok(stats.into_iter().filter(|guest| guest.state.is_some()).map(|guest| (guest.uuid, guest.state)).collect())
    }

    /// Servers of this host that no task is changing.
    async fn settled_servers(&self) -> Result<Vec<Server>, ComputeError> {
        let sql = format!(
            "{SELECT} WHERE s.host = $1 AND s.deleted_at IS NULL AND s.task_state IS NULL \
             AND s.vm_state IN ('active', 'stopped', 'resized')"
        );
        self.database.query(&sql, &[self.host().into()]).await?.iter().map(Server::from_row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_together_mean_what_nova_says() {
        use {PowerState as P, VmState as V};
        assert_eq!(judge(V::Active, 1, Some(P::Running)), None);
        assert_eq!(judge(V::Active, 1, Some(P::ShutOff)), Some(Mend::IsOff));
        assert_eq!(judge(V::Active, 1, Some(P::Crashed)), Some(Mend::IsOff));
        assert_eq!(judge(V::Active, 1, Some(P::Paused)), Some(Mend::Power));
        assert_eq!(judge(V::Active, 1, None), Some(Mend::Power));
        assert_eq!(judge(V::Active, 0, None), None);
        assert_eq!(judge(V::Stopped, 4, Some(P::Running)), Some(Mend::StopIt));
        assert_eq!(judge(V::Stopped, 4, Some(P::ShutOff)), None);
        assert_eq!(judge(V::Stopped, 4, None), None);
        assert_eq!(judge(V::Resized, 1, Some(P::ShutOff)), Some(Mend::Power));
        assert_eq!(judge(V::Resized, 4, None), None);
        assert_eq!(judge(V::Error, 0, Some(P::Running)), None);
    }
}
