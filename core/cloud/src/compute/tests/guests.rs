//! The hypervisor that stored guests have is known at the next start.

use std::path::Path;

use super::*;

#[tokio::test]
async fn the_hypervisor_of_stored_guests_is_remembered_or_recognised() {
    for world in worlds("simulated", SystemClock::shared()).await {
        let (database, folder) = (&world.database, tempfile::tempdir().expect("a directory"));
        let instances = folder.path().join("instances");
        let known = async |at: &Path| hypervisor_of_guests(database, at).await.expect("asked");
        assert_eq!(known(&instances).await, Some("simulated"), "the start has noted it");
        for kind in ["libvirt", "simulated", "unheard-of", "libvirt", "libvirt"] {
            super::super::guests::note(database, kind).await.expect("noted");
            let expected = if kind == "unheard-of" { "simulated" } else { kind };
            assert_eq!(known(&instances).await, Some(expected));
        }
        // A build that noted nothing left this.
        database.execute("DELETE FROM compute_done", &[]).await.expect("deleted");
        assert_eq!(known(&instances).await, None, "no guests");
        let sql = "INSERT INTO compute_servers (id, project_id, user_id, name, host, vm_state, status, flavor_id, vcpus, \
                   memory_mib, disk_gib, created_at, updated_at, record) \
                   VALUES ('s', 'p', 'u', 'n', 'h', 'active', 'ACTIVE', 'f', 1, 1, 1, 0, 0, '{}')";
        database.execute(sql, &[]).await.expect("inserted");
        assert_eq!(known(&instances).await, Some("simulated"), "no disks");
        std::fs::create_dir_all(&instances).expect("made");
        assert_eq!(known(&instances).await, Some("simulated"), "no disks");
        std::fs::create_dir(instances.join("s")).expect("made");
        assert_eq!(known(&instances).await, Some("libvirt"), "disks");
        database.execute("UPDATE compute_servers SET deleted_at = 1", &[]).await.expect("deleted");
        assert_eq!(known(&instances).await, None, "no guests any more");
    }
}
