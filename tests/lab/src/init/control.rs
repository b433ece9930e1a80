//! Requests from outside: see [`garboard_lab::control`].

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::sync::mpsc::SyncSender;

use anyhow::Context as _;
use garboard_lab::control::Request;
use garboard_lab::spec::CONTROL;
use garboard_lab::spec::OWN;

use crate::supervisor::Event;

/// Listens from now on: whoever can connect knows that the node's file systems are there.
pub fn serve(events: SyncSender<Event>) -> anyhow::Result<()> {
    let path = Path::new(OWN).join(CONTROL);
    // The one of a node that was stopped.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
    std::thread::spawn(move || {
        for accepted in listener.incoming() {
            let Ok(stream) = accepted else { continue };
            let events = events.clone();
            std::thread::spawn(move || {
                if !converse(&stream, &events) {
                    eprintln!("lab-node: its holder is gone");
                    std::process::exit(0);
                }
            });
        }
    });
    Ok(())
}

/// Answers until the other side has nothing more to say; false if the node is to end then.
fn converse(mut stream: &UnixStream, events: &SyncSender<Event>) -> bool {
    let mut held = false;
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        let answer = match line.parse::<Request>() {
            Ok(request @ (Request::Hold | Request::Release)) => {
                held = request == Request::Hold;
                Ok(String::new())
            }
            Ok(request) => ask(request, events),
            Err(error) => Err(error.to_string()),
        };
        let written = match answer {
            Ok(text) => writeln!(stream, "ok {text}"),
            Err(text) => writeln!(stream, "error {text}"),
        };
        if written.is_err() {
            break;
        }
    }
    !held
}

fn ask(request: Request, events: &SyncSender<Event>) -> Result<String, String> {
    let (sender, answer) = mpsc::sync_channel(1);
    let ended = |_| "the supervisor has ended".to_owned();
    events.send(Event::Asked(request, sender)).map_err(|_| ended(mpsc::RecvError))?;
    answer.recv().map_err(ended)?
}
