//! The lines of `X-Forwarded-For` and `Forwarded`: one address for each proxy that a request has passed, in their order. `None` stands for
//! a client that is not named: `unknown`, a pseudonym, or what cannot be read.

use std::net::IpAddr;

/// The addresses of a line of `X-Forwarded-For`. Proxies write them with a port and without.
pub(super) fn addresses(line: &str) -> Vec<Option<IpAddr>> {
    let named = line.split(',').map(str::trim).filter(|text| !text.is_empty());
    named.map(node).collect()
}

/// What is said of the client by each element of a line of `Forwarded` (RFC 7239, section 4). `None` for a line that does not follow its
/// grammar: where an element ends is then open, and with it what a proxy has added.
pub(super) fn elements(line: &str) -> Option<Vec<Option<IpAddr>>> {
    let mut elements = Vec::new();
    let mut rest = line;
    let (mut client, mut is_empty) = (None, true);
    loop {
        rest = rest.trim_start();
        if !rest.is_empty() && !rest.starts_with([',', ';']) {
            let (name, value, after) = pair(rest)?;
            if name.eq_ignore_ascii_case("for") && client.replace(value).is_some() {
                return None;
            }
            is_empty = false;
            rest = after.trim_start();
        }
        if let Some(after) = rest.strip_prefix(';') {
            rest = after;
            continue;
        }
        let named = client.take();
        if !is_empty {
            elements.push(named.and_then(|named| node(&named)));
        }
        is_empty = true;
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return rest.is_empty().then_some(elements),
        }
    }
}

/// `name=value` at the beginning of the text, and what follows.
fn pair(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.split_once('=')?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return None;
    }
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find(|character: char| !is_value(character)).unwrap_or(rest.len());
        let (value, after) = rest.split_at(end);
        return (!value.is_empty()).then(|| (name, value.to_owned(), after));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((name, value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

/// A character of a token (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A character of a value without quotes. Some proxies leave out those of an address with a port.
fn is_value(character: char) -> bool {
    u8::try_from(character).is_ok_and(is_token) || matches!(character, ':' | '[' | ']')
}

/// The address of `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` and `[2001:db8::1]:80`; the port may be a pseudonym.
fn node(text: &str) -> Option<IpAddr> {
    if let Some((address, _)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        return address.parse().ok().map(IpAddr::V6);
    }
    match text.split_once(':') {
        Some((address, port)) if !port.contains(':') => address.parse().ok().map(IpAddr::V4),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever a client has sent before it: the end is what the proxy has written, or the line is not believed.
        #[test]
        fn what_a_proxy_adds_is_the_last_element(before in r#"[fFor=";,\\\[\]:. 0-9a]{0,40}"#, is_quoted: bool) {
            let (added, address) = match is_quoted {
                true => (r#"for="[2001:db8::7]:80""#, "2001:db8::7"),
                false => ("for=198.51.100.7", "198.51.100.7"),
            };
            if let Some(elements) = elements(&format!("{before}, {added}")) {
                prop_assert_eq!(elements.last().copied().flatten(), address.parse().ok());
            }
        }

        #[test]
        fn no_line_is_too_broken_to_be_read(line in ".{0,60}") {
            elements(&line);
            addresses(&line);
        }
    }
}
