//! The compute service answers as Nova does.
