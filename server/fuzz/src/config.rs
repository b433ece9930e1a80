//! What an operator writes: command line and environment, or a configuration file, up to what node and API are told.
//!
//! The first byte of an input chooses. A file is the rest. A command line is the words of the rest, one a line; behind an empty line
//! come variables.

use std::path::Path;
use std::sync::Arc;

use garboard::config::Config;
use garboard::env;
use garboard::file;
use garboard::flags::Settings;
use garboard::flags::parse::Request;
use garboard::flags::parse::parse;
use garboard_storage::disk::Disk;
use garboard_storage::disk::OpenOptions;
use garboard_storage::disk::memory::MemoryDisk;

/// The first byte of an input whose rest is a file.
pub const FILE: u8 = 1;

/// Returns the configuration, or what is wrong with it.
pub fn run(input: &[u8]) -> Result<Config, String> {
    let (first, text) = input.split_first().unwrap_or((&0, &[]));
    let disk = MemoryDisk::new();
    let settings = if first & FILE != 0 { from_file(&disk, text)? } else { from_words(text)? };
    let host = (first & 2 != 0).then(|| "192.0.2.7".to_owned());
    let (config, notices) = Config::new(settings, || host).map_err(|error| error.to_string())?;
    assert!(notices.iter().all(|notice| !format!("{notice:?}").is_empty()));
    let _ = config.validate_bootstrap();
    let node = config.node(garboard_node::PeerTls::default());
    assert!(node.request_timeout() >= node.election_timeout && node.min_lease_ttl_s() > 0);
    let _ = (
        node.quota_bytes(),
        garboard_node::member_id(&node.initial_advertise_peer_urls, &node.initial_cluster_token, None),
    );
    let _ = config.api(Arc::new(disk), None);
    Ok(config)
}

fn from_file(disk: &MemoryDisk, text: &[u8]) -> Result<Settings, String> {
    let path = Path::new("/etc/garboard.yaml");
    disk.create_dir_all(Path::new("/etc")).expect("a disk in memory");
    disk.open(path, OpenOptions::create_new()).expect("the disk is empty");
    disk.set_content(path, text.to_vec()).expect("it was just created");
    file::load(disk, path).map(|loaded| loaded.settings).map_err(|error| error.to_string())
}

fn from_words(text: &[u8]) -> Result<Settings, String> {
    let text = String::from_utf8_lossy(text);
    let (words, variables) = text.split_once("\n\n").unwrap_or((&text, ""));
    let words = words.split('\n').filter(|word| !word.is_empty()).map(str::to_owned);
    let Request::Serve(mut settings) = parse(words).map_err(|error| error.to_string())? else {
        return Err("asks for help or the version".to_owned());
    };
    let variables = variables.split('\n').filter_map(|line| line.split_once('='));
    env::apply(&mut settings, variables.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .map_err(|error| error.to_string())?;
    Ok(settings)
}
