//! The subject's common name of a certificate. The certificate's chain was verified before.

use crate::der::OBJECT_IDENTIFIER;
use crate::der::SEQUENCE;
use crate::der::SET;
use crate::der::element;
use crate::der::fields;
use crate::der::skip;

/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// UTF8String, NumericString, PrintableString, T61String, IA5String: those whose bytes are read as text.
const TEXTS: &[u8] = &[0x0c, 0x12, 0x13, 0x14, 0x16];

/// The last common name of the subject, as Go's `Subject.CommonName`; None if there is none.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    // Serial number, signature algorithm, issuer, validity.
    let fields = skip(fields(certificate)?, 4)?;
    let (SEQUENCE, mut names, _) = element(fields)? else { return None };
    let mut found = None;
    while !names.is_empty() {
        let (SET, mut attributes, rest) = element(names)? else { return None };
        names = rest;
        while !attributes.is_empty() {
            let (SEQUENCE, attribute, rest) = element(attributes)? else { return None };
            attributes = rest;
            let (OBJECT_IDENTIFIER, kind, value) = element(attribute)? else { return None };
            let (tag, text, _) = element(value)?;
            if kind == COMMON_NAME && TEXTS.contains(&tag) {
                found = Some(String::from_utf8(text.to_vec()).ok()?);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use rcgen::CertificateParams;
    use rcgen::DnType;
    use rcgen::KeyPair;

    use super::*;

    fn certificate(name: Option<&str>) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["host.example".into()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "an organisation ".repeat(20));
        if let Some(name) = name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_are_found() {
        assert_eq!(common_name(&certificate(Some("root"))).as_deref(), Some("root"));
        assert_eq!(common_name(&certificate(Some("jürgen"))).as_deref(), Some("jürgen"));
        assert_eq!(common_name(&certificate(None)), None);
    }

    #[test]
    fn no_cut_and_no_flip_makes_it_fail_otherwise_than_by_none() {
        let whole = certificate(Some("root"));
        for length in 0..whole.len() {
            assert_eq!(common_name(&whole[..length]), None);
        }
        for position in 0..whole.len() {
            for flip in [1u8, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[position] ^= flip;
                let _ = common_name(&bytes);
            }
        }
    }
}
