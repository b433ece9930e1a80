use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use garboard_runtime::spawn;
use garboard_storage::disk::RealDisk;

use super::*;

/// Set in the process that is to panic.
const PANIC: &str = "GARBOARD_TEST_PANIC";
const NAME: &str = "log::tests::a_panic_on_any_thread_is_logged_and_ends_the_process";
const SIGABRT: i32 = 6;

#[test]
fn a_panic_on_any_thread_is_logged_and_ends_the_process() {
    if std::env::var_os(PANIC).is_some() {
        let config = LogConfig { level: Level::Info, format: Format::Json, targets: vec![Target::Stderr] };
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        begin(&config, &disk).unwrap();
        assert!(matches!(begin(&config, &disk), Err(LogError::Twice)));
        let thread = spawn::thread("worker", || panic!("lost {} things", 3)).unwrap();
        let _ = thread.join();
        unreachable!("the process goes on after a panic");
    }
    let this = std::env::current_exe().unwrap();
    let output = Command::new(this).args(["--exact", NAME, "--nocapture"]).env(PANIC, "1").output().unwrap();
    assert_eq!(output.status.signal(), Some(SIGABRT), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    let line = text.lines().find(|line| line.contains("lost 3 things")).unwrap_or_else(|| panic!("{text}"));
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        (&line["level"], &line["msg"], &line["thread"]),
        (&"panic".into(), &"lost 3 things".into(), &"worker".into())
    );
    assert!(line["caller"].as_str().unwrap().starts_with("log/tests.rs:"), "{line}");
}

#[test]
fn levels_by_name() {
    for (text, expected) in [
        ("debug", Some(Level::Debug)),
        ("INFO", Some(Level::Info)),
        ("", Some(Level::Info)),
        ("warn", Some(Level::Warn)),
        ("error", Some(Level::Error)),
        ("panic", Some(Level::Panic)),
        ("fatal", Some(Level::Fatal)),
        ("trace", None),
    ] {
        assert_eq!(Level::parse(text), expected, "{text}");
    }
}
