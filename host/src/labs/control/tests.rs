//! One clock, two ends of a real socket.
use std::sync::Arc;
use std::time::Duration;

use gpuhost_stdlib::core::clock::{Clock, Mode, VirtualClock};
use gpuhost_stdlib::core::dialer::Routes;

use super::client::Shared;
use super::server::{Control, Hello, Pace, RouteNews};

async fn served(clock: &VirtualClock) -> (String, tokio::sync::broadcast::Sender<RouteNews>, Routes) {
    let (news, _) = tokio::sync::broadcast::channel(16);
    let routes = Routes::default();
    let hello = Hello { site: "s".to_owned(), state_dir: "/nowhere".into() };
    let pace = Pace { alone: Mode::Explicit, shared: Mode::Instant };
    let control = Control::new(clock.clone(), routes.clone(), news.clone(), pace, Arc::new(move || hello.clone()));
    let (at, _task) = control.listen().await.unwrap();
    (at.to_string(), news, routes)
}

async fn settled(clock: &VirtualClock, busy: i64) {
    for _ in 0..20_000 {
        if clock.busy() == busy {
            return;
        }
        tokio::task::spawn_blocking(std::thread::yield_now).await.unwrap();
    }
    assert_eq!(clock.busy(), busy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_is_shared_and_marks_come_back() {
    let v = VirtualClock::new(1000, Mode::Explicit);
    let (addr, news, routes) = served(&v).await;
    routes.set("10.0.0.2:8006", "127.0.0.1:1".parse().unwrap());
    let mine = Routes::default();
    let (shared, hello) = {
        let mine = mine.clone();
        tokio::task::spawn_blocking(move || Shared::connect(&addr, Some(mine), || {}).unwrap()).await.unwrap()
    };
    assert_eq!(hello.site, "s");
    assert!(mine.get("10.0.0.2:8006").is_some());
    let clock = Clock::Remote(Arc::new(shared));
    let mark = clock.busy();
    assert_eq!(v.busy(), 1);
    news.send(RouteNews::Up("10.0.0.11:22".to_owned(), "127.0.0.1:2".parse().unwrap())).unwrap();
    clock.sleep(Duration::from_secs(600)).await;
    assert_eq!(v.now_ms(), 601_000);
    assert_eq!(clock.now_ms().await, 601_000);
    assert_eq!(v.busy(), 1);
    // A deadline ends what sleeps longer.
    let c = clock.clone();
    let out = clock.within(Duration::from_secs(5), async move { c.sleep(Duration::from_secs(50)).await }).await;
    assert!(out.is_none());
    assert!(v.now_ms() >= 606_000, "{}", v.now_ms());
    settled(&v, 1).await;
    assert!(mine.get("10.0.0.11:22").is_some());
    drop(mark);
    drop(clock);
    settled(&v, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_client_releases_what_it_held() {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
    let v = VirtualClock::new(0, Mode::Explicit);
    let (addr, _news, _routes) = served(&v).await;
    let raw = tokio::net::TcpStream::connect(&addr).await.unwrap();
    let (read, mut write) = raw.into_split();
    write.write_all(b"mark 1\nmark 1\nsleep 1 5000000\nnow\n").await.unwrap();
    let mut lines = tokio::io::BufReader::new(read).lines();
    while !lines.next_line().await.unwrap().unwrap().starts_with("now") {}
    assert!(v.busy() >= 1);
    drop((lines, write));
    settled(&v, 0).await;
    assert!(v.now_ms() < 5_000_001);
}
