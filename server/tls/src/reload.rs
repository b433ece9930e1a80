//! Follows the files: a handshake takes what they hold then, without a restart. A broken file keeps the settings before it, and says so once.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use garboard_runtime::clock;
use garboard_runtime::spawn;
use parking_lot::Mutex;

use crate::ReadFile;
use crate::TlsError;
use crate::TlsOptions;
use crate::settings::Files;
use crate::settings::Settings;

/// Settings that follow their files.
pub struct Reloader {
    options: TlsOptions,
    read: ReadFile,
    current: ArcSwap<Settings>,
    /// What was looked at last, good or broken (None: could not be read).
    seen: Mutex<Option<Files>>,
    opened_at: clock::Instant,
    /// Milliseconds from `opened_at` to the next look.
    next_look_ms: AtomicU64,
    look_interval: Duration,
}

impl Reloader {
    /// Reads the files, and later, when a handshake comes, again if `look_interval` has passed since.
    ///
    /// # Errors
    /// The files cannot be read or used now.
    pub fn open(options: TlsOptions, read: ReadFile, look_interval: Duration) -> Result<Reloader, TlsError> {
        let files = Files::read(&options, &read)?;
        let settings = Settings::build(&options, &files)?;
        Ok(Reloader {
            options,
            read,
            current: ArcSwap::from_pointee(settings),
            seen: Mutex::new(Some(files)),
            opened_at: clock::now(),
            next_look_ms: AtomicU64::new(millis(look_interval)),
            look_interval,
        })
    }

    /// The settings for a handshake that begins now.
    pub async fn current(self: &Arc<Self>) -> Arc<Settings> {
        let now_ms = millis(clock::now().saturating_duration_since(self.opened_at));
        let due_ms = self.next_look_ms.load(Ordering::Relaxed);
        let next_ms = now_ms + millis(self.look_interval);
        let due = now_ms >= due_ms;
        if due && self.next_look_ms.compare_exchange(due_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let reloader = Arc::clone(self);
            // A disk that hangs must not stop the other connections of this thread.
            let _ = spawn::blocking(move || reloader.look()).await;
        }
        self.current.load_full()
    }

    fn look(&self) {
        let mut seen = self.seen.lock();
        match Files::read(&self.options, &self.read) {
            Ok(files) => {
                if seen.as_ref() == Some(&files) {
                    return;
                }
                match Settings::build(&self.options, &files) {
                    Ok(settings) => {
                        self.current.store(Arc::new(settings));
                        tracing::info!(cert = %self.options.cert_file.display(), "TLS files reloaded");
                    }
                    Err(error) => tracing::error!(%error, "TLS files are broken; those before are kept"),
                }
                *seen = Some(files);
            }
            Err(error) => {
                if seen.take().is_some() {
                    tracing::error!(%error, "TLS files cannot be read; those before are kept");
                }
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
