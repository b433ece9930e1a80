//! A member with its API, on a port of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use garboard_node::Node;
use garboard_node::NodeConfig;
use garboard_runtime::clock;
use garboard_storage::disk::memory::MemoryDisk;
use prometheus::Registry;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::ApiConfig;
use crate::ListenUrl;
use crate::Running;
use crate::serve;
use crate::tests::client::Client;

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Member {
    pub node: Node,
    pub running: Running,
    stop: oneshot::Sender<()>,
}

/// etcd's defaults on a free port, with two client threads.
pub fn config() -> ApiConfig {
    let no_files = |path: &Path| Err(std::io::Error::new(std::io::ErrorKind::NotFound, path.display().to_string()));
    let mut config = ApiConfig::new(Arc::new(no_files));
    config.client_urls = vec!["http://127.0.0.1:0".parse().unwrap()];
    config.client_threads = 2;
    config
}

impl Member {
    pub async fn start(config: ApiConfig) -> Member {
        let registry = Registry::new();
        let settings = NodeConfig {
            data_dir: "/member".into(),
            election_timeout: Duration::from_millis(200),
            heartbeat_interval: Duration::from_millis(20),
            wal_segment_bytes: 1 << 20,
            ..Default::default()
        };
        let node = Node::start(settings, Arc::new(MemoryDisk::new()), &registry).await.unwrap();
        clock::timeout(PATIENCE, node.ready()).await.unwrap().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let running = serve(config, node.clone(), registry, shutdown).await.unwrap();
        Member { node, running, stop }
    }

    pub fn address(&self) -> SocketAddr {
        address(&self.running.client_urls[0])
    }

    pub async fn client(&self) -> Client {
        Client::connect(TcpStream::connect(self.address()).await.unwrap()).await
    }

    /// Stops the API and waits until all is drained; then the member.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        clock::timeout(PATIENCE, self.running.finished()).await.unwrap();
        self.node.shutdown().await;
    }

    /// Begins the shutdown without waiting.
    pub fn begin_stop(self) -> (Running, Node) {
        self.stop.send(()).unwrap();
        (self.running, self.node)
    }
}

pub fn address(url: &ListenUrl) -> SocketAddr {
    let address: SocketAddr = url.address.parse().unwrap();
    assert_ne!(address.port(), 0, "port 0 has become the port it got");
    address
}
