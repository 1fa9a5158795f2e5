//! Copies on this machine: never more than they may take, never believed more than the bucket.

use super::*;

async fn furnished(world: &World) -> (Arc<Store>, TieredDisk, Vec<Point>) {
    let tier = world.tier().expect("its disk works");
    let disk = Arc::new(tier.clone());
    let store = Store::open_on(disk, world.settings.clone(), world.room.clone(), world.clock.clone()).await;
    let store = store.expect("opens");
    let mut points = Vec::new();
    for series in 1..=20 {
        let new: Vec<_> = (0..100).map(|n| point(series, n, (n * 7 % 13) as f64)).collect();
        store.append(new.clone()).await.expect("stored");
        store.flush().await.expect("flushed");
        points.extend(new);
    }
    (store, tier, points)
}

fn copies(world: &World) -> Vec<(PathBuf, Vec<u8>)> {
    let mut copies = world.disk.files();
    copies.retain(|(path, _)| world.name(path).is_some());
    copies
}

#[tokio::test]
async fn copies_take_no_more_than_they_may_and_reads_are_the_same() {
    let mut world = World::new();
    world.cache_bytes_max = 5000;
    let (store, tier, points) = furnished(&world).await;
    let is_within = || {
        let bytes: usize = copies(&world).iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(tier.cached_bytes(), bytes as u64);
        bytes <= 5000 && bytes > 2000
    };
    assert!(is_within() && store.stats().file_bytes > 10_000);
    for series in (1..=20).rev().chain(1..=20) {
        let expected: Vec<_> = points.iter().filter(|point| point.series.0 == series).copied().collect();
        assert_eq!(everything(&store, &[series]).await.expect("read"), rows(&expected));
        assert!(is_within());
    }
    store.compact().await.expect("merged");
    assert_eq!(everything(&store, &Vec::from_iter(1..=20)).await.expect("read"), rows(&points));
    store.close().await.expect("closed");
    drop((store, tier));
    world.forget_copies();
    let store = world.open().await.expect("opens");
    assert!(copies(&world).is_empty(), "nothing is fetched before it is asked for");
    assert_eq!(everything(&store, &Vec::from_iter(1..=20)).await.expect("read"), rows(&points));
    assert!(!copies(&world).is_empty());
}

#[tokio::test]
async fn a_copy_gives_way_to_the_log_when_the_disk_is_nearly_full() {
    let world = World::new();
    let (store, _, _) = furnished(&world).await;
    assert_eq!(copies(&world).len(), 20);
    drop(store);
    world.disk.restart(crate::faults::Restart::Killed);
    world.disk.set_free_bytes(10_000);
    let bucket = Bucket::new(Arc::new(world.bucket.booted()), PREFIX).expect("a thread");
    let settings = TierSettings { cache_bytes_max: 1 << 30, free_bytes_min: 20_000, sweep_after: Duration::ZERO };
    let local = Arc::new(world.disk.booted());
    let tier = TieredDisk::open(local, bucket, "s3://test", Path::new("/store"), settings, world.clock.clone());
    let tier = Arc::new(tier.expect("its disk works"));
    let store = Store::open_on(tier, world.settings.clone(), world.room.clone(), world.clock.clone()).await;
    let store = store.expect("opens");
    store.append(vec![point(1, 1000, 1.0)]).await.expect("stored");
    store.flush().await.expect("flushed");
    assert_eq!(copies(&world).len(), 1, "all but the newest went");
}

#[tokio::test]
async fn a_damaged_copy_is_read_from_the_bucket_instead() {
    let world = World::new();
    let (store, _, points) = furnished(&world).await;
    store.close().await.expect("closed");
    drop(store);
    for (path, mut bytes) in copies(&world) {
        let half = bytes.len() / 2;
        bytes[half] ^= 0x10;
        bytes[20] ^= 1;
        world.disk.put(&path, bytes);
    }
    let store = world.open().await.expect("opens");
    assert_eq!(everything(&store, &Vec::from_iter(1..=20)).await.expect("read"), rows(&points));
    assert!(store.verify().await.expect("read").is_sound());
    store.back_up(Path::new("/copy"), None, |_| {}).await.expect("copied");
    assert_eq!(store.stats().quarantined, 0);
}

#[tokio::test]
async fn a_damaged_object_is_told_although_its_copy_is_whole() {
    let world = World::new();
    let (store, _, _) = furnished(&world).await;
    assert!(store.verify().await.expect("read").is_sound());
    let path = PathBuf::from("/store/samples").join(&store.files()[3].path);
    let name = world.name(&path).expect("in the bucket");
    let mut bytes = world.objects().into_iter().find(|(there, _)| *there == name).expect("there").1;
    bytes[30] ^= 1;
    world.bucket.objects().put(&name, bytes.into()).await.expect("in memory");
    assert_eq!(everything(&store, &[4]).await.expect("from the copy").len(), 100);
    let report = store.verify().await.expect("read");
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert!(report.problems[0].contains(&store.files()[3].path), "{:?}", report.problems);
}
