//! Which hypervisor this machine's guests have: the one that is set, else the one that they had at the last start.

use std::sync::Arc;

use anyhow::Context;
use orzo_cloud::compute::hypervisor_of_guests;
use orzo_hypervisor::{Hypervisor, Libvirt, LibvirtSettings, Simulated};

use super::Ground;
use crate::settings::{HypervisorChoice, Role};

/// The hypervisor, if any role needs one. What the embedded cloud's guests have it notes itself; a process that only polls
/// has no guests of its own and looks each time.
pub(super) async fn open(ground: &Ground) -> anyhow::Result<Option<Arc<dyn Hypervisor>>> {
    let settings = &ground.settings.cloud;
    let is_polled = ground.settings.has(Role::Agents) && ground.settings.agents.compute;
    if !ground.settings.has(Role::Cloud) && !is_polled {
        return Ok(None);
    }
    let data_directory = &ground.settings.server.data_directory;
    let kept = match ground.settings.has(Role::Cloud) {
        true => hypervisor_of_guests(&ground.database, &data_directory.join("instances")).await?,
        false => None,
    };
    let choice = chosen(settings.hypervisor, kept);
    match kept {
        Some(kept) if settings.hypervisor == HypervisorChoice::Auto => {
            tracing::info!(
                hypervisor = kept,
                "the guests of this data directory keep their hypervisor; set cloud.hypervisor to have another one"
            );
        }
        Some(kept) if chosen(HypervisorChoice::Auto, Some(kept)) != choice => {
            tracing::warn!(
                before = kept,
                "cloud.hypervisor is another one than the stored guests had; it does not know them"
            );
        }
        _ => {}
    }
    let simulated = || -> Arc<dyn Hypervisor> {
        Arc::new(Simulated::new(ground.host.clone(), settings.simulated_seed, ground.clock.clone()))
    };
    let libvirt = LibvirtSettings {
        uri: settings.libvirt_uri.clone(),
        instances: data_directory.clone(),
        ..LibvirtSettings::default()
    };
    Ok(Some(match choice {
        HypervisorChoice::Simulated => simulated(),
        HypervisorChoice::Libvirt => {
            let reason = match settings.hypervisor {
                HypervisorChoice::Libvirt => "cloud.hypervisor is libvirt",
                _ => "the guests of this data directory are libvirt's (cloud.hypervisor is auto)",
            };
            Arc::new(Libvirt::connect(libvirt, ground.clock.clone()).await.context(reason)?)
        }
        HypervisorChoice::Auto => match Libvirt::connect(libvirt, ground.clock.clone()).await {
            Ok(libvirt) => Arc::new(libvirt),
            Err(error) => {
                tracing::info!(reason = %error, "no libvirt: guests are simulated");
                simulated()
            }
        },
    }))
}

/// What is set wins; `auto` is decided once and then kept to.
fn chosen(setting: HypervisorChoice, kept: Option<&str>) -> HypervisorChoice {
    match (setting, kept) {
        (HypervisorChoice::Auto, Some("simulated")) => HypervisorChoice::Simulated,
        (HypervisorChoice::Auto, Some("libvirt")) => HypervisorChoice::Libvirt,
        (setting, _) => setting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_not_decided_anew_and_what_is_set_wins() {
        use HypervisorChoice::{Auto, Libvirt, Simulated};
        for (setting, kept, expected) in [
            (Auto, None, Auto),
            (Auto, Some("simulated"), Simulated),
            (Auto, Some("libvirt"), Libvirt),
            (Libvirt, Some("simulated"), Libvirt),
            (Simulated, Some("libvirt"), Simulated),
            (Simulated, None, Simulated),
        ] {
            assert_eq!(chosen(setting, kept), expected, "{setting:?} {kept:?}");
        }
    }
}
