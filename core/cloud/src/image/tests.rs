//! The image service answers as Glance does.
