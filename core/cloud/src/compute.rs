//! Servers (Nova v2.1).
