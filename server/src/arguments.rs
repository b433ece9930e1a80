//! The arguments of subcommands, which take flags and files in any order.

use std::path::PathBuf;

/// Name and value of `--name=value`, `--name` or `-w`; None for what is no flag.
pub(crate) fn flag(argument: &str) -> Option<(&str, Option<&str>)> {
    let text = argument.strip_prefix("--").or(argument.strip_prefix('-'))?;
    Some(text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value))))
}

/// The value of a flag that needs one: behind its `=`, or the next argument.
///
/// # Errors
/// There is none.
pub(crate) fn value_of<'a>(
    argument: &str,
    value: Option<&'a str>,
    rest: &mut impl Iterator<Item = &'a &'a str>,
) -> Result<&'a str, String> {
    value.or_else(|| rest.next().copied()).ok_or_else(|| format!("flag needs an argument: {argument}"))
}

/// The one path that is given.
pub(crate) fn only(paths: Vec<PathBuf>) -> Option<PathBuf> {
    <[PathBuf; 1]>::try_from(paths).ok().map(|[path]| path)
}
