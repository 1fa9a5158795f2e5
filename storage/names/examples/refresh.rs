//! What the table `series` costs: half of so many series are metrics of resources, half are label sets. Prints for each refresh its time and
//! processor time, what it wrote, and the memory of the process.
//!
//! `cargo run --release -p orzo-names --example refresh -- 1000000`
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::{sync::Arc, time::Instant};

use orzo_database::Database;
use orzo_index::{ImportedMetric, ImportedResource, ImportedRevision, Index, IndexSettings};
use orzo_labels::{LabelIndex, LabelSets, LabelSettings, SeriesNumbers};
use orzo_model::{SystemClock, Timestamp};
use orzo_names::{SeriesTable, TableSettings};
use orzo_store::files::real::RealDisk;
use uuid::Uuid;

/// Metrics of each resource.
const METERS: usize = 10;

struct Numbers(Arc<Index>);

#[async_trait::async_trait]
impl SeriesNumbers for Numbers {
    async fn reserve(&self, count: u64) -> Result<u64, String> {
        self.0.reserve_series(count).await.map_err(|error| error.to_string())
    }
}

/// Seconds of all threads' processor time so far, and the most memory (KiB).
fn spent() -> (f64, String) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let ticks: Vec<f64> = stat.rsplit(')').next().unwrap().split(' ').filter_map(|word| word.parse().ok()).collect();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let rss = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().split_whitespace().nth(1).unwrap();
    // utime and stime are the 14th and 15th field; the first of these is the 4th.
    ((ticks[10] + ticks[11]) / 100.0, rss.to_owned())
}

fn resource(number: usize) -> ImportedResource {
    let attributes =
        serde_json::json!({"display_name": format!("vm-{number}"), "host": format!("host-{}", number % 100)});
    ImportedResource {
        id: Uuid::from_u128(number as u128 + 1),
        resource_type: "instance".to_owned(),
        original_resource_id: Uuid::from_u128(number as u128 + 1).to_string(),
        creator: "u:p".to_owned(),
        revisions: vec![ImportedRevision {
            project_id: Some(format!("project-{}", number % 50)),
            user_id: None,
            started_at: Timestamp::from_secs(1_700_000_000),
            ended_at: None,
            revision_start: Timestamp::from_secs(1_700_000_000),
            attributes: attributes.as_object().unwrap().clone(),
        }],
    }
}

fn metrics(number: usize) -> impl Iterator<Item = ImportedMetric> {
    (0..METERS).map(move |meter| ImportedMetric {
        id: Uuid::from_u128(
            ((number * METERS + meter) as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        ),
        name: Some(format!("meter.{meter}")),
        unit: None,
        creator: "u:p".to_owned(),
        resource_id: Some(Uuid::from_u128(number as u128 + 1)),
        archive_policy_name: "low".to_owned(),
    })
}

#[tokio::main]
async fn main() {
    let series: usize = std::env::args().nth(1).map_or(100_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let clock = SystemClock::shared();
    let database = Database::open_file(&folder.path().join("orzo.db")).await.unwrap();
    let index = Arc::new(Index::open(database, clock.clone(), IndexSettings::default()).await.unwrap());
    let settings = LabelSettings { directory: folder.path().join("labels"), ..LabelSettings::default() };
    let labels = LabelIndex::open(settings, Arc::new(Numbers(index.clone())), clock.clone()).await.unwrap();
    let labels = Arc::new(labels);
    let resources = series / 2 / METERS;
    for first in (0..resources).step_by(200) {
        let some = first..(first + 200).min(resources);
        index.import_resources(&some.clone().map(resource).collect::<Vec<_>>()).await.unwrap();
        index.import_metrics(&some.flat_map(metrics).collect::<Vec<_>>()).await.unwrap();
    }
    for first in (0..series / 2).step_by(5000) {
        let mut sets = LabelSets::default();
        for number in first..(first + 5000).min(series / 2) {
            let (host, path) = (format!("host-{}", number % 1000), format!("/some/path/{number}"));
            let mut set = vec![("__name__", "http_requests_total"), ("host", &*host), ("job", "web"), ("path", &*path)];
            sets.push(&mut set, &Default::default()).unwrap();
        }
        labels.create("prom", sets).await.unwrap();
    }
    let settings = TableSettings { directory: folder.path().join("series"), ..TableSettings::default() };
    let mut table = SeriesTable::new(Arc::new(RealDisk), index.clone(), Some(labels.clone()), clock, settings);
    let (_, before) = spent();
    println!("{series} series; {before} KiB before");
    for what in ["all of it", "nothing", "one resource with its metrics", "one label set", "nothing"] {
        match what {
            "one resource with its metrics" => {
                index.import_resources(&[resource(resources)]).await.unwrap();
                index.import_metrics(&metrics(resources).collect::<Vec<_>>()).await.unwrap();
            }
            "one label set" => {
                let mut sets = LabelSets::default();
                sets.push(&mut vec![("__name__", "up")], &Default::default()).unwrap();
                labels.create("prom", sets).await.unwrap();
            }
            _ => {}
        }
        let (begun_at, (cpu, _)) = (Instant::now(), spent());
        let refreshed = table.refresh().await.unwrap();
        let (after, rss) = spent();
        println!(
            "{what}: {:.2} s, {:.2} s of processor, {} files written, {} taken out, {rss} KiB",
            begun_at.elapsed().as_secs_f64(),
            after - cpu,
            refreshed.added,
            refreshed.removed
        );
    }
    let bytes = std::fs::read_dir(folder.path().join("series")).unwrap().flatten();
    let bytes: u64 = bytes
        .filter_map(|entry| entry.metadata().ok())
        .filter(|metadata| metadata.is_file())
        .map(|metadata| metadata.len())
        .sum();
    println!("{bytes} bytes of files");
}
