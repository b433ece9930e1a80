//! SIGTERM and SIGINT: the first asks for an orderly end, the second for an end at once. Either way the process dies by
//! the signal, as etcd does, so that whoever waits for it sees why it ended.

use std::io;

use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::emulate_default_handler;
use tokio::signal::unix;
use tokio::signal::unix::SignalKind;

/// What asked for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Terminate,
    Interrupt,
}

impl Signal {
    /// Go's name of it, which etcd logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "terminated",
            Self::Interrupt => "interrupt",
        }
    }

    const fn number(self) -> i32 {
        match self {
            Self::Terminate => SIGTERM,
            Self::Interrupt => SIGINT,
        }
    }
}

/// The signals from now on.
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    /// Takes the signals over from the system, which would end the process.
    ///
    /// # Errors
    /// The system refuses.
    pub fn take() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }
}

/// Ends the process by `signal`.
pub fn die_by(signal: Signal) -> ! {
    // The kernel does not let the first process of a container die by a signal.
    if std::process::id() != 1 {
        let _ = emulate_default_handler(signal.number());
    }
    std::process::exit(0)
}
