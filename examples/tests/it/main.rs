//! The example handlers from end to end, in memory.

mod bench;
mod csv_profile;
mod csv_shapes;
mod http_fetch;
mod products;
mod support;
mod synthetic;
mod templates;
