//! From the command line to a configuration, and what is answered without one: help, version, subcommands.

use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::net::IpAddr;
use std::net::ToSocketAddrs as _;
use std::net::UdpSocket;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use garboard_node::Release;
use garboard_storage::disk::Disk;
use garboard_storage::disk::RealDisk;
use garboard_storage::wal::WalError;
use garboard_storage::wal::survey::has_entries;
use serde_json::Map;
use serde_json::Value;

use crate::config::Config;
use crate::config::ConfigError;
use crate::config::Lookups;
use crate::dns::DnsError;
use crate::dns::Resolver;
use crate::env;
use crate::env::EnvError;
use crate::file;
use crate::file::FileError;
use crate::flags::Settings;
use crate::flags::help;
use crate::flags::parse::Request;
use crate::flags::parse::parse;
use crate::inspect;
use crate::log;
use crate::log::Level;
use crate::log::LogError;
use crate::notice::Notice;
use crate::serve;
use crate::snapshot;
use crate::snapshot::CommandError;
use crate::version;
use crate::wal_dump;

/// The exit code of `inspect` when something is damaged.
const EXIT_DAMAGED: u8 = 5;

/// Why a member was not started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Env(#[from] EnvError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("error setting up initial cluster: {0}")]
    Dns(#[from] DnsError),
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error("cannot look into the data directory: {0}")]
    DataDir(io::Error),
}

/// Runs the program. `arguments` are without the program's own name.
pub fn run(
    arguments: impl Iterator<Item = OsString>,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> ExitCode {
    run_as(Arc::new(RealDisk), Release::default(), arguments, variables)
}

/// The same on another disk or as another release; subcommands are for the real ones.
pub fn run_as(
    disk: Arc<dyn Disk>,
    release: Release,
    arguments: impl Iterator<Item = OsString>,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let arguments: Vec<String> = match arguments.map(OsString::into_string).collect() {
        Ok(arguments) => arguments,
        Err(argument) => return usage(&format!("the argument {argument:?} is not UTF-8"), 2),
    };
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["wal", "dump", dir] => return dump_wal(Path::new(dir)),
        ["snapshot", ref rest @ ..] => return run_snapshot(rest),
        ["inspect", ref rest @ ..] => return run_inspect(rest),
        ["wal", ..] => return usage("wal: the one subcommand is: dump <directory>", 2),
        [command @ ("gateway" | "grpc-proxy"), ..] => {
            return usage(&format!("the subcommand {command} is not supported"), 1);
        }
        _ => {}
    }
    let settings = match parse(arguments.iter().cloned()) {
        Ok(Request::Serve(settings)) => settings,
        Ok(Request::Help) => {
            print(io::stderr().lock(), help::USAGE);
            print(io::stdout().lock(), &help::flags());
            return ExitCode::SUCCESS;
        }
        Ok(Request::Version) => {
            print(io::stdout().lock(), &version::text());
            return ExitCode::SUCCESS;
        }
        Err(error) => return usage(&error.to_string(), error.exit_code()),
    };
    // Variables that are not UTF-8 are no flags of ours.
    let variables = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    match prepare(settings, variables.collect(), &arguments, &disk) {
        Ok(config) => serve::run(&config, disk, release),
        Err(error) => {
            let fields = Map::from_iter([("error".to_owned(), Value::from(error.to_string()))]);
            log::emit(Level::Fatal, "failed to verify flags", &fields);
            log::flush();
            ExitCode::FAILURE
        }
    }
}

/// From here on there is a log.
fn prepare(
    settings: Settings,
    variables: Vec<(String, String)>,
    arguments: &[String],
    disk: &Arc<dyn Disk>,
) -> Result<Config, StartError> {
    let (settings, mut notices) = load(settings, variables, &**disk)?;
    let (mut config, about_config) = Config::new(settings, default_host)?;
    notices.extend(about_config);
    log::begin(&config.log, disk)?;
    log::notice(&Notice::info("Running: ").with("args", arguments.to_vec()));
    for notice in &notices {
        log::notice(notice);
    }
    discover(&mut config, &**disk)?;
    config.validate_peers()?;
    if !disk.exists(&config.data_dir.join("member")).map_err(StartError::DataDir)? {
        config.validate_bootstrap()?;
    }
    Ok(config)
}

/// Asks DNS who the members are, until this one has a log that says so. One that joins is told by the members.
fn discover(config: &mut Config, disk: &dyn Disk) -> Result<(), StartError> {
    let wal_dir = config.wal_dir.clone().unwrap_or_else(|| config.data_dir.join("member/wal"));
    if config.discovery_srv.is_none() || !config.join.is_empty() || has_entries(disk, &wal_dir)? {
        return Ok(());
    }
    let resolver = Resolver::of_system(disk)?;
    let host = |name: &str, port: u16| (name, port).to_socket_addrs().map(Iterator::collect);
    for notice in config.discover(&Lookups { srv: &|name| resolver.srv(name), host: &host })? {
        log::notice(&notice);
    }
    Ok(())
}

/// The values that count: from the file when there is one, else from flags and environment.
fn load(
    mut settings: Settings,
    variables: Vec<(String, String)>,
    disk: &dyn Disk,
) -> Result<(Settings, Vec<Notice>), StartError> {
    let from_variable =
        variables.iter().find(|variable| variable.0 == env::CONFIG_FILE).map(|variable| variable.1.clone());
    let path = Some(settings.text("config-file")).filter(|path| !path.is_empty()).or(from_variable);
    match path.filter(|path| !path.is_empty()) {
        Some(path) => {
            let mut loaded = file::load(disk, Path::new(&path))?;
            let text = "loaded server configuration, other configuration command line flags and environment variables \
                        will be ignored if provided";
            loaded.notices.insert(0, Notice::info(text).with("path", path));
            Ok((loaded.settings, loaded.notices))
        }
        None => {
            let notices = env::apply(&mut settings, variables)?;
            Ok((settings, notices))
        }
    }
}

/// The address this machine would send from: that of the interface of the default route. Nothing is sent.
fn default_host() -> Option<String> {
    // An address for documentation (RFC 5737), which leads to the default route.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_unspecified() && !address.is_loopback() => Some(address.to_string()),
        _ => None,
    }
}

fn dump_wal(dir: &Path) -> ExitCode {
    let stdout = io::stdout().lock();
    match wal_dump::run(&RealDisk, dir, &mut io::BufWriter::new(stdout)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print(io::stderr().lock(), &format!("garboard wal dump: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn run_inspect(arguments: &[&str]) -> ExitCode {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    match inspect::run(arguments, &disk) {
        Ok((text, is_whole)) => {
            print(io::stdout().lock(), &text);
            if is_whole { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DAMAGED) }
        }
        Err(error @ inspect::CommandError::Arguments(_)) => usage(&format!("Error: {error}"), 2),
        Err(error) => {
            print(io::stderr().lock(), &format!("Error: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn run_snapshot(arguments: &[&str]) -> ExitCode {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    match snapshot::run(arguments, &disk) {
        Ok(text) => {
            print(io::stdout().lock(), &text);
            ExitCode::SUCCESS
        }
        Err(error @ (CommandError::Arguments(_) | CommandError::Flags(_))) => usage(&format!("Error: {error}"), 128),
        Err(error) => {
            print(io::stderr().lock(), &format!("Error: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn usage(error: &str, code: u8) -> ExitCode {
    print(io::stderr().lock(), &format!("{error}\n{}\n", help::USAGE));
    ExitCode::from(code)
}

fn print(mut out: impl Write, text: &str) {
    // Who does not read it does not want it.
    let _ = out.write_all(text.as_bytes());
}
