//! The same behaviours with the table in a bucket, and those that only such a store has.

// The same bodies, with another `World` above them.
#![allow(clippy::duplicate_mod)]

#[path = "backup.rs"]
mod backup;
#[path = "behaviour.rs"]
mod behaviour;
#[path = "crash.rs"]
mod crash;
#[path = "damage.rs"]
mod damage;
#[path = "model.rs"]
mod model;
#[path = "simulation.rs"]
mod simulation;

mod claims;
mod copies;
mod s3;
mod weather;

use super::*;

type World = WorldOf<InBucket>;
