//! Example handlers with their templates: what `tasker dev` runs and the README shows.
//!
//! `products` and `csv_profile` work on real files, `synthetic` and `bench` on numbers, `http_fetch`
//! on an HTTP service. `faulty` does everything wrong that a handler can do wrong, and
//! `chaos` is the load of the fault tests.

mod approval;
mod bench;
mod chaos;
mod csv_file;
mod csv_profile;
mod diamond;
mod faulty;
mod http_fetch;
mod products;
mod resumable;
mod synthetic;

use tasker_sdk::HandlerRegistry;

/// What `tasker dev` offers: the examples and the workloads of `tasker bench`.
pub fn registry() -> HandlerRegistry {
    example_handlers().merge(bench::handlers())
}

/// The handlers of the example workflows.
pub fn example_handlers() -> HandlerRegistry {
    products::handlers()
        .merge(csv_profile::handlers())
        .merge(synthetic::handlers())
        .merge(diamond::handlers())
        .merge(approval::handlers())
        .merge(resumable::handlers())
        .merge(http_fetch::handlers())
}

/// Handlers that panic, hang, abort the process and the like. A worker that runs work of others
/// should not offer them.
pub fn faulty_handlers() -> HandlerRegistry {
    faulty::handlers().merge(chaos::handlers())
}

/// Templates of the examples and of the benchmarks: file name without extension, and YAML.
pub const TEMPLATES: &[(&str, &str)] = &[
    ("products", include_str!("../templates/products.yaml")),
    ("csv_profile", include_str!("../templates/csv_profile.yaml")),
    ("synthetic", include_str!("../templates/synthetic.yaml")),
    ("diamond_decision_batch", include_str!("../templates/diamond_decision_batch.yaml")),
    ("conditional_approval", include_str!("../templates/conditional_approval.yaml")),
    ("http_fetch", include_str!("../templates/http_fetch.yaml")),
    ("resumable", include_str!("../templates/resumable.yaml")),
    ("bench_fan_out", include_str!("../templates/bench_fan_out.yaml")),
    ("bench_chain", include_str!("../templates/bench_chain.yaml")),
];
