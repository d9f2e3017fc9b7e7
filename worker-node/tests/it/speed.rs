use crate::fake::{Fake, member_part};
use crate::handlers::registry;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore]
async fn speed() {
    let n: u32 = std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let mut fake = Fake::start().await;
    fake.settings = fake.server.settings();
    fake.open_queue().await;
    fake.seen().part = Box::new(|_| Ok(member_part("echo")));
    for round in 0..4 {
    let items = fake.members(n);
    let t = Instant::now();
    fake.publish(&items).await;
    eprintln!("published {:.0}/s", f64::from(n) / t.elapsed().as_secs_f64());
    drop(items);
    fake.seen().reports.clear();
    let cpu0 = cpu();
    let t = Instant::now();
    let worker = fake.worker(registry()).await;
    let gap = std::cell::Cell::new(0usize);
    fake.until("all", |seen| { gap.set(gap.get()+1); seen.reports.iter().map(Vec::len).sum::<usize>() >= n as usize }).await;
    let dt = t.elapsed().as_secs_f64();
    let reports = fake.seen().reports.len();
    eprintln!("round {round}: {:.0}/s in {dt:.2}s, {reports} reports, process cpu {:.2}s", f64::from(n) / dt, cpu() - cpu0);
    fake.until_acknowledged().await;
    worker.stop().await;
    }
}

fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore]
async fn latency() {
    let mut fake = Fake::start().await;
    fake.settings = fake.server.settings();
    fake.open_queue().await;
    let worker = fake.worker(registry()).await;
    let mut times = Vec::new();
    for n in 0..500 {
        let item = fake.item("echo", serde_json::json!(n));
        let t = Instant::now();
        fake.publish(std::slice::from_ref(&item)).await;
        fake.until("one", |seen| seen.outcomes().last().is_some_and(|o| o.step_id == item.step_id)).await;
        times.push(t.elapsed());
        fake.seen().reports.clear();
    }
    times.sort();
    eprintln!("p50 {:?} p99 {:?}", times[250], times[495]);
    worker.stop().await;
}
