//! The real library: against libvirt's own test driver, which needs no daemon, and against `ORZO_TEST_LIBVIRT`
//! (such as `qemu:///system`) with a guest that burns its processor.

use std::{fs, time::Duration};

use orzo_model::SystemClock;

use super::*;
use crate::{Disk, Flavor, NovaMetadata};

async fn test_driver() -> Option<Libvirt> {
    let settings = LibvirtSettings { uri: "test:///default".into(), ..LibvirtSettings::default() };
    match Libvirt::connect(settings, SystemClock::shared()).await {
        Ok(libvirt) => Some(libvirt),
        Err(error) if std::env::var_os("ORZO_TEST_LIBVIRT").is_none() => {
            eprintln!("not run: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn spec(disk: Option<Disk>) -> GuestSpec {
    let uuid = Uuid::new_v4();
    GuestSpec {
        uuid,
        name: format!("instance-{uuid}"),
        nova: NovaMetadata {
            display_name: "burner <1>".into(),
            user_id: "u1".into(),
            project_id: "p1".into(),
            flavor: Flavor { name: "m1.nano".into(), vcpus: 1, memory_mib: 64, disk_gib: 1, ..Flavor::default() },
            ..NovaMetadata::default()
        },
        root_disk: disk,
        mac: Some("52:54:00:aa:bb:01".into()),
    }
}

#[tokio::test]
async fn the_test_driver_tells_about_its_domain() {
    let Some(libvirt) = test_driver().await else { return };
    let node = libvirt.node().await.unwrap();
    assert!(node.vcpus > 0 && node.memory_mib > 0 && node.disk_gib > 0 && !node.hostname.is_empty());
    let guests = libvirt.stats().await.unwrap();
    let test = guests.iter().find(|guest| guest.name == "test").expect("the driver's own domain");
    assert_eq!(test.state, Some(PowerState::Running));
    assert_eq!(test.nova, None);
}

#[tokio::test]
async fn the_life_of_a_guest() {
    let Some(libvirt) = test_driver().await else { return };
    life_of_a_guest(&libvirt, spec(None)).await;
}

/// The same story for every libvirt.
async fn life_of_a_guest(libvirt: &Libvirt, spec: GuestSpec) {
    let uuid = spec.uuid;
    assert_eq!(libvirt.state(uuid).await.unwrap(), None);
    assert!(matches!(libvirt.start(uuid).await, Err(HypervisorError::NoGuest { .. })));
    libvirt.create(&spec).await.unwrap();
    libvirt.create(&spec).await.expect("creating again changes nothing");
    assert_eq!(libvirt.state(uuid).await.unwrap(), Some(PowerState::Running));
    let seen = libvirt.stats().await.unwrap().into_iter().find(|guest| guest.uuid == uuid).unwrap();
    assert_eq!(seen.nova, Some(spec.nova.clone()));
    assert_eq!(seen.name, spec.name);

    libvirt.stop(uuid, true).await.unwrap();
    libvirt.stop(uuid, true).await.expect("stopping what is off changes nothing");
    assert_eq!(libvirt.state(uuid).await.unwrap(), Some(PowerState::ShutOff));
    let seen = libvirt.stats().await.unwrap().into_iter().find(|guest| guest.uuid == uuid).unwrap();
    assert_eq!(seen.state, Some(PowerState::ShutOff));

    libvirt.start(uuid).await.unwrap();
    libvirt.start(uuid).await.expect("starting what runs changes nothing");
    libvirt.reboot(uuid, true).await.unwrap();
    assert_eq!(libvirt.state(uuid).await.unwrap(), Some(PowerState::Running));

    libvirt.destroy(uuid).await.unwrap();
    libvirt.destroy(uuid).await.expect("destroying what is gone changes nothing");
    assert_eq!(libvirt.state(uuid).await.unwrap(), None);
    assert!(libvirt.stats().await.unwrap().iter().all(|guest| guest.uuid != uuid));
}

#[tokio::test]
async fn a_description_is_read_again_only_when_it_must() {
    let Some(libvirt) = test_driver().await else { return };
    let record = StatsRecord { uuid: Uuid::nil(), id: Some(1), ..StatsRecord::default() };
    let described = Described { id: Some(1), read_at: Duration::from_secs(10), description: Arc::default() };
    assert!(is_current(&described, &record, Duration::from_secs(11)));
    assert!(!is_current(&described, &record, Duration::from_secs(10) + DESCRIPTION_AGE_MAX), "too old");
    assert!(
        !is_current(&described, &StatsRecord { id: Some(2), ..record.clone() }, Duration::from_secs(11)),
        "restarted"
    );
    let disk = ("block.0.name".to_owned(), ffi::TypedValue::Text("vdb".into()));
    assert!(
        !is_current(&described, &StatsRecord { values: vec![disk], ..record }, Duration::from_secs(11)),
        "new disk"
    );

    libvirt.stats().await.unwrap();
    let read_at: Vec<Duration> = libvirt.descriptions.lock().values().map(|d| d.read_at).collect();
    libvirt.stats().await.unwrap();
    let again: Vec<Duration> = libvirt.descriptions.lock().values().map(|d| d.read_at).collect();
    assert!(!read_at.is_empty());
    assert_eq!(read_at, again);
}

/// Resident memory of this process in KiB.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[tokio::test]
async fn what_libvirt_hands_out_is_given_back() {
    let Some(libvirt) = test_driver().await else { return };
    let ask = async |times: u32| {
        let question = move |connection: &Connection| {
            for _ in 0..times {
                connection.all_stats(true)?;
                connection.node()?;
                for record in connection.all_stats(true)? {
                    // The guests of the tests beside this one come and go.
                    let _ = connection.domain(record.uuid).and_then(|domain| domain.xml());
                }
            }
            Ok(())
        };
        libvirt.statistics.ask("ask often", Duration::from_secs(60), question).await.unwrap().unwrap();
    };
    ask(1_000).await;
    let before = resident_kib();
    // In parts, each with a limit that a machine with much else to do does not meet.
    for _ in 0..30 {
        ask(1_000).await;
    }
    let grown = resident_kib().saturating_sub(before);
    // The statistics alone would be 24 MiB.
    assert!(grown < 10_000, "{grown} KiB more after thirty thousand rounds");
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    assert!(matches!(Libvirt::available("nonsense:///").await, Err(HypervisorError::NotAvailable { .. })));
}

#[tokio::test]
async fn a_call_that_hangs_is_left_and_the_next_one_answers() {
    let Some(libvirt) = test_driver().await else { return };
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let hang = move |_: &Connection| {
        let _ = held.lock().recv();
        Ok(())
    };
    let asked = libvirt.statistics.ask("hang", Duration::from_millis(50), hang).await;
    assert!(matches!(asked, Err(HypervisorError::Deadline { action: "hang", .. })));
    assert!(!libvirt.stats().await.unwrap().is_empty(), "a fresh thread answers");
    drop(release);
}

/// A boot sector that turns its processor in a circle: `jmp $`, and the signature that a BIOS looks for.
fn boot_sector() -> Vec<u8> {
    let mut sector = vec![0u8; 512];
    sector[..2].copy_from_slice(&[0xeb, 0xfe]);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[tokio::test]
async fn a_real_guest_boots_burns_and_is_measured() {
    let Ok(uri) = std::env::var("ORZO_TEST_LIBVIRT") else {
        // Its twin without a daemon is `the_life_of_a_guest`.
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    fs::write(&path, [boot_sector(), vec![0; 1 << 20]].concat()).unwrap();
    let settings = LibvirtSettings { uri, shutdown_grace: Duration::from_secs(1), ..LibvirtSettings::default() };
    let mut libvirt = Libvirt::connect(settings, SystemClock::shared()).await.unwrap();
    let detected = std::mem::replace(&mut libvirt.virtualisation, "qemu");
    let spec = spec(Some(Disk { path, format: "raw".into() }));
    let uuid = spec.uuid;
    libvirt.create(&spec).await.unwrap();

    // It boots (the BIOS reads the first sector) and then burns, within 30 s at most.
    let guest = async || libvirt.stats().await.unwrap().into_iter().find(|guest| guest.uuid == uuid).unwrap();
    let first = guest().await;
    let burnt = async || {
        let now = guest().await;
        let read = now.disks[0].read_bytes.unwrap();
        (read >= 512).then_some(now.cpu_time_ns.unwrap() - first.cpu_time_ns.unwrap())
    };
    for _ in 0..60 {
        if burnt().await > Some(1_000_000_000) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(burnt().await > Some(1_000_000_000), "{:?} ns since the boot sector was read", burnt().await);
    let seen = guest().await;
    assert_eq!(seen.vcpus, Some(1));
    assert_eq!(seen.vcpu_times_ns.len(), 1, "time and wait of every vCPU");
    assert_eq!(seen.memory.actual_kib, Some(64 * 1024));
    assert!(seen.memory.rss_kib.unwrap() > 0);
    let disk = &seen.disks[0];
    assert_eq!(disk.device, "vda");
    assert!(disk.read_bytes.unwrap() >= 512 && disk.read_requests.unwrap() > 0, "the BIOS read its boot sector");
    assert_eq!(disk.capacity_bytes, Some((1 << 20) + 512));

    // A boot sector does not listen to ACPI, so the grace passes and the plug is pulled; then the common story.
    libvirt.stop(uuid, false).await.unwrap();
    assert_eq!(libvirt.state(uuid).await.unwrap(), Some(PowerState::ShutOff));
    libvirt.destroy(uuid).await.unwrap();

    // Emulation runs everywhere; now the common story with what this machine offers.
    libvirt.virtualisation = detected;
    life_of_a_guest(&libvirt, spec).await;
}
