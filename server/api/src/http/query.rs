//! Query strings, as far as the health checks read them.

/// The values given for `name`, decoded, the empty ones included.
pub fn values(query: &str, name: &str) -> Vec<String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(key, _)| decode(key) == name)
        .map(|(_, value)| decode(value))
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => match (rest.next().and_then(digit), rest.next().and_then(digit)) {
                (Some(high), Some(low)) => high << 4 | low,
                // Go drops a pair it cannot decode; what is unknown matches nothing here either.
                _ => b'\xff',
            },
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_name() {
        assert_eq!(values("exclude=NOSPACE&verbose&exclude=a%20b+c&x=1", "exclude"), ["NOSPACE", "a b c"]);
        assert_eq!(values("verbose", "verbose"), [""]);
        assert!(values("", "verbose").is_empty());
        assert_eq!(values("a=%zz", "a").len(), 1);
    }
}
