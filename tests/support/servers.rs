//! RabbitMQ and PostgreSQL as children of a test, on their own ports and directories; killed when dropped.

use std::{
    net::TcpStream,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{free_port, free_port_pair, wait_for};

/// A server that a test can kill and start again on the same data.
pub struct Server {
    script: &'static str,
    directory: PathBuf,
    port: u16,
    child: Option<Child>,
}

/// The broker takes half a minute on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);

impl Server {
    pub fn rabbitmq(directory: &Path) -> Self {
        Self::start_new("rabbitmq", directory.join("rabbitmq"), free_port_pair())
    }

    pub fn postgres(directory: &Path) -> Self {
        Self::start_new("postgres", directory.join("postgres"), free_port())
    }

    fn start_new(script: &'static str, directory: PathBuf, port: u16) -> Self {
        let mut server = Self { script, directory, port, child: None };
        server.start();
        server
    }

    /// URL for Orzo's settings.
    pub fn url(&self) -> String {
        match self.script {
            "rabbitmq" => format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port),
            _ => format!("postgres://orzo@127.0.0.1:{}/orzo", self.port),
        }
    }

    /// Starts it and waits until it answers.
    pub fn start(&mut self) {
        self.child = Some(self.spawn());
        wait_for(self.script, START_LIMIT, || {
            let child = self.child.as_mut().unwrap();
            if let Ok(Some(status)) = child.try_wait() {
                let log = std::fs::read_to_string(self.directory.with_extension("log")).unwrap_or_default();
                // PostgreSQL's own children have groups of their own: they end when they see that their parent is gone, on
                // a busy machine after the next start.
                assert!(
                    log.contains("pre-existing shared memory block"),
                    "{} ended with {status}:\n{log}",
                    self.script
                );
                self.child = Some(self.spawn());
            }
            // An open port is not enough: the broker opens it before it serves.
            self.answers().then_some(())
        });
    }

    fn spawn(&self) -> Child {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(self.script);
        let log = std::fs::File::create(self.directory.with_extension("log")).unwrap();
        Command::new(script)
            .arg(&self.directory)
            .arg(self.port.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            // A group of its own, so that everything it starts dies with it.
            .process_group(0)
            .spawn()
            .unwrap()
    }

    /// kill -9 of the server and everything it started.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The standard library cannot signal a group; the tool can.
            let _ = Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]).status();
            let _ = child.wait();
            wait_for("the port to close", Duration::from_secs(20), || {
                TcpStream::connect(("127.0.0.1", self.port)).is_err().then_some(())
            });
        }
    }

    fn answers(&self) -> bool {
        use std::io::{Read, Write};
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let hello: &[u8] = match self.script {
            "rabbitmq" => b"AMQP\x00\x00\x09\x01",
            // An SSLRequest: any server that is ready answers one byte.
            _ => &[0, 0, 0, 8, 4, 210, 22, 47],
        };
        let mut answer = [0u8; 1];
        stream.write_all(hello).is_ok() && stream.read_exact(&mut answer).is_ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // No waiting and no judgement here: a test that failed must be able to say why.
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]).status();
            let _ = child.wait();
        }
    }
}
