//! A client, a proxy, and a server that sends back what it gets, all in lines of NATS.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Proxy, Rule, Verdict, Way, Weather, no_rule};
use crate::Protocol;
use crate::servers::free_port;

/// Long enough for a line to arrive, if it goes on at all.
const A_WHILE: Duration = Duration::from_millis(200);

async fn echo() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Ok(port)
}

/// A proxy and a client behind it, which has given its name.
async fn client(rule: Rule, name: &str) -> anyhow::Result<(Proxy, TcpStream, u16)> {
    let port = free_port()?;
    let proxy = Proxy::start(Protocol::Nats, echo().await?, rule, async move { port })?;
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let hello = format!("CONNECT {{\"name\":\"{name}\"}}\r\n");
    assert_eq!(said(&mut stream, &hello, hello.len()).await?, hello);
    Ok((proxy, stream, port))
}

/// Says something and returns so many bytes of what comes back.
async fn said(stream: &mut TcpStream, what: &str, bytes: usize) -> anyhow::Result<String> {
    stream.write_all(what.as_bytes()).await?;
    let mut answer = vec![0; bytes];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8(answer)?)
}

#[tokio::test]
async fn what_is_held_follows_later() -> anyhow::Result<()> {
    for (hold_up, hold_down) in [(true, false), (false, true), (true, true)] {
        let (proxy, mut stream, _) = client(no_rule(), "worker-1").await?;
        proxy.set(Weather { whom: "other", hold_up, hold_down, ..Weather::default() });
        assert_eq!(said(&mut stream, "A\r\n", 3).await?, "A\r\n");
        proxy.set(Weather { whom: "worker", hold_up, hold_down, ..Weather::default() });
        assert!(timeout(A_WHILE, said(&mut stream, "B\r\n", 3)).await.is_err());
        proxy.clear();
        assert_eq!(said(&mut stream, "C\r\n", 6).await?, "B\r\nC\r\n");
    }
    Ok(())
}

#[tokio::test]
async fn connections_are_reset_and_refused() -> anyhow::Result<()> {
    let (proxy, mut stream, port) = client(no_rule(), "worker-1").await?;
    assert_eq!((proxy.cut("other"), proxy.cut("worker")), (0, 1));
    let error = stream.read(&mut [0]).await.expect_err("not closed but reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    proxy.set(Weather { refuse: true, ..Weather::default() });
    // Whether it is reset before it is known to be there is a matter of chance.
    let refused = async {
        let mut next = TcpStream::connect(("127.0.0.1", port)).await?;
        said(&mut next, "A\r\n", 3).await
    };
    assert!(refused.await.is_err());
    Ok(())
}

#[tokio::test]
async fn what_is_delayed_takes_its_time() -> anyhow::Result<()> {
    let (proxy, mut stream, _) = client(no_rule(), "a").await?;
    proxy.set(Weather { delay: A_WHILE, ..Weather::default() });
    let begun = tokio::time::Instant::now();
    said(&mut stream, "A\r\n", 3).await?;
    // Up and down.
    assert!(begun.elapsed() >= 2 * A_WHILE);
    Ok(())
}

#[tokio::test]
async fn messages_are_judged_one_by_one() -> anyhow::Result<()> {
    let rule: Rule = std::sync::Arc::new(|| {
        Box::new(|name, way, message| match (way, message) {
            (Way::Down, _) => Verdict::Pass,
            (Way::Up, b"DROP\r\n") if name == "me" => Verdict::Drop,
            (Way::Up, b"AGAIN\r\n") => Verdict::Again(A_WHILE),
            (Way::Up, b"LATER\r\n") => Verdict::Later(A_WHILE / 2),
            (Way::Up, b"CUT\r\n") => Verdict::Cut,
            _ => Verdict::Pass,
        })
    });
    let (_proxy, mut stream, _) = client(rule, "me").await?;
    let all = "LATER\r\nA\r\nAGAIN\r\nDROP\r\nB\r\n";
    let got = said(&mut stream, all, 27).await?;
    assert_eq!(got, "A\r\nAGAIN\r\nB\r\nLATER\r\nAGAIN\r\n");
    assert!(said(&mut stream, "C\r\nCUT\r\n", 3).await.is_err(), "C was lost with the connection");
    Ok(())
}
