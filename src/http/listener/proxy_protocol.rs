//! The header of the PROXY protocol, with which a balancer begins a connection to say which client it is for.
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, versions 1 and 2.)

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What version 2 begins with. No request of HTTP does.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The bytes of the shortest header, `PROXY UNKNOWN` with its line break: so many can be read before its version is known.
const SHORTEST: usize = 15;

/// The most bytes of a header of version 1, with its line break.
const LINE_MAX: usize = 107;

/// The most bytes of version 2 behind its length: the addresses, and what else a balancer tells, such as the name in a certificate.
const REST_MAX: usize = 4 << 10;

/// Why there is no header.
#[derive(Debug, Error)]
pub(super) enum HeaderError {
    /// The balancer has only looked whether the port is open.
    #[error("the connection was closed without a byte")]
    Unused,
    /// The connection broke off.
    #[error("the header broke off")]
    Incomplete(#[source] io::Error),
    /// It did not arrive in time.
    #[error("the header did not arrive within EVENTSIEVE_HEADER_TIMEOUT")]
    Late,
    /// The bytes are none.
    #[error("{0}")]
    Invalid(&'static str),
}

impl From<io::Error> for HeaderError {
    fn from(error: io::Error) -> Self {
        Self::Incomplete(error)
    }
}

/// Reads the header and nothing behind it, and returns the client; `None` where the connection is the balancer's own, or the client has no
/// address of the internet.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Option<IpAddr>, HeaderError> {
    let mut head = [0; SHORTEST];
    let begun = stream.read(&mut head).await?;
    if begun == 0 {
        return Err(HeaderError::Unused);
    }
    stream.read_exact(&mut head[begun..]).await?;
    if head.starts_with(SIGNATURE) {
        let [.., version, family, high] = head;
        let rest = usize::from(u16::from_be_bytes([high, stream.read_u8().await?]));
        if rest > REST_MAX {
            return Err(HeaderError::Invalid("the header is too long"));
        }
        let mut addresses = vec![0; rest];
        stream.read_exact(&mut addresses).await?;
        return version_2(version, family, &addresses).map_err(HeaderError::Invalid);
    }
    if !head.starts_with(b"PROXY ") {
        return Err(HeaderError::Invalid("the connection began with something else"));
    }
    let line = read_line(stream, head.to_vec()).await?;
    version_1(&line).map_err(HeaderError::Invalid)
}

/// The line that has begun with `line`, up to its line break.
async fn read_line(stream: &mut TcpStream, mut line: Vec<u8>) -> Result<Vec<u8>, HeaderError> {
    while !line.ends_with(b"\n") {
        let mut seen = [0; LINE_MAX];
        let room = LINE_MAX - line.len();
        if room == 0 {
            return Err(HeaderError::Invalid("the line of the header is too long"));
        }
        // What follows the line is left to the reader of requests.
        let count = stream.peek(&mut seen[..room]).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let end = seen[..count].iter().position(|byte| *byte == b'\n');
        let part = &mut seen[..end.map_or(count, |at| at + 1)];
        stream.read_exact(part).await?;
        line.extend_from_slice(part);
    }
    Ok(line)
}

/// The client in a line of version 1.
fn version_1(line: &[u8]) -> Result<Option<IpAddr>, &'static str> {
    const BROKEN: &str = "the line of the header is broken";

    let text = str::from_utf8(line).map_err(|_| BROKEN)?;
    let text = text.strip_suffix("\r\n").ok_or(BROKEN)?;
    let mut words = text.split(' ').skip(1);
    let protocol = words.next().ok_or(BROKEN)?;
    if protocol == "UNKNOWN" {
        return Ok(None);
    }
    let words: Vec<&str> = words.collect();
    let [client, server, ports @ ..] = &words[..] else {
        return Err(BROKEN);
    };
    let parse = |address: &str| match protocol {
        "TCP4" => address.parse().ok().map(IpAddr::V4),
        "TCP6" => address.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    let client = parse(client).filter(|_| parse(server).is_some());
    let ports_fit = ports.len() == 2 && ports.iter().all(|port| port.parse::<u16>().is_ok());
    client.filter(|_| ports_fit).map(Some).ok_or(BROKEN)
}

/// The client in a header of version 2: its version with the command, its family with the protocol, and what follows the length.
fn version_2(version: u8, family: u8, addresses: &[u8]) -> Result<Option<IpAddr>, &'static str> {
    const SHORT: &str = "the header is too short for its addresses";

    match version {
        // LOCAL: a connection of the balancer's own.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err("the header has a version or a command that is unknown"),
    }
    match family {
        0x00 => Ok(None),
        // Over TCP: the client, the server, two ports.
        0x11 => {
            let client: [u8; 4] = *addresses.get(..12).and_then(<[u8]>::first_chunk).ok_or(SHORT)?;
            Ok(Some(Ipv4Addr::from(client).into()))
        }
        0x21 => {
            let client: [u8; 16] = *addresses.get(..36).and_then(<[u8]>::first_chunk).ok_or(SHORT)?;
            Ok(Some(Ipv6Addr::from(client).into()))
        }
        // A socket of the balancer's machine.
        0x31 if addresses.len() >= 216 => Ok(None),
        0x31 => Err(SHORT),
        _ => Err("the header has a family or a protocol that is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const CLIENT: &str = "198.51.100.7";

    fn second(version: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[version, family], &length, addresses].concat()
    }

    fn over_ipv4(more: &[u8]) -> Vec<u8> {
        let addresses = [&[198, 51, 100, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80], more].concat();
        second(0x21, 0x11, &addresses)
    }

    /// What is read of these parts, which arrive one by one, and what is left for the reader of requests.
    async fn read_of(parts: &[&[u8]]) -> (Result<Option<IpAddr>, HeaderError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (mut served, _) = listener.accept().await.unwrap();
        let mut client = connecting.unwrap();
        client.set_nodelay(true).unwrap();
        let write = async {
            for part in parts {
                client.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        let (header, ()) = tokio::join!(read(&mut served), write);
        let mut left = Vec::new();
        served.read_to_end(&mut left).await.unwrap();
        (header, left)
    }

    #[tokio::test]
    async fn client_is_read_and_nothing_behind_it() {
        let large = over_ipv4(&[7; 2000]);
        let ipv6 = [[0x20; 32].as_slice(), &[0; 4]].concat();
        for (header, expected) in [
            (b"PROXY TCP4 198.51.100.7 10.0.0.1 4660 80\r\n".to_vec(), Some(CLIENT)),
            (
                b"PROXY TCP6 2001:db8::7 fd00::1 4660 80\r\n".to_vec(),
                Some("2001:db8::7"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), None),
            (over_ipv4(&[]), Some(CLIENT)),
            (large, Some(CLIENT)),
            (
                second(0x21, 0x21, &ipv6),
                Some("2020:2020:2020:2020:2020:2020:2020:2020"),
            ),
            (second(0x20, 0x11, &[9; 12]), None),
            (second(0x20, 0x00, &[]), None),
            (second(0x21, 0x00, b"more"), None),
            (second(0x21, 0x31, &[0; 216]), None),
        ] {
            let expected = expected.map(|address| address.parse().unwrap());
            let request = b"GET / HTTP/1.1\r\n\r\n";
            let whole = [&header[..], request].concat();
            let bytes: Vec<&[u8]> = whole.chunks(1).collect();
            for parts in [&[&whole[..]][..], &bytes] {
                let (read, left) = read_of(parts).await;
                assert_eq!(read.unwrap(), expected, "{header:?}");
                assert_eq!(left, request, "{header:?}");
            }
        }
    }

    #[tokio::test]
    async fn broken_header_is_an_error() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_MAX));
        let huge = second(0x21, 0x11, &[0; REST_MAX + 1]);
        for header in [
            b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
            b"PROXY TCP4 198.51.100.7 10.0.0.1 4660 80\n".to_vec(),
            b"PROXY TCP4 198.51.100.7 10.0.0.1 4660\r\n".to_vec(),
            b"PROXY TCP4 198.51.100.7 10.0.0.1 4660 80 81\r\n".to_vec(),
            b"PROXY TCP4 198.51.100.7 10.0.0.1 4660 70000\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 10.0.0.1 4660 80\r\n".to_vec(),
            b"PROXY TCP4 198.51.100.7  10.0.0.1 4660 80\r\n".to_vec(),
            b"PROXY TCP5 198.51.100.7 10.0.0.1 4660 80\r\n".to_vec(),
            b"PROXY  TCP4 198.51.100.7 10.0.0.1 4660 80\r\n".to_vec(),
            b"PROXY TCP4 \xff 10.0.0.1 4660 80\r\n".to_vec(),
            b"PROXY TCP4 198.51.100.7".to_vec(),
            b"proxy tcp4 198.51.100.7 10.0.0.1 4660 80\r\n".to_vec(),
            b"PROXY\r\n".to_vec(),
            long.into_bytes(),
            huge,
            second(0x11, 0x11, &[0; 12]),
            second(0x22, 0x11, &[0; 12]),
            second(0x21, 0x12, &[0; 12]),
            second(0x21, 0x11, &[0; 11]),
            second(0x21, 0x21, &[0; 35]),
            second(0x21, 0x31, &[0; 215]),
            over_ipv4(&[])[..20].to_vec(),
            SIGNATURE.to_vec(),
        ] {
            let (read, _) = read_of(&[&header]).await;
            let error = read.expect_err(&String::from_utf8_lossy(&header));
            assert!(!matches!(error, HeaderError::Unused), "{header:?}");
        }
        assert!(matches!(read_of(&[]).await.0, Err(HeaderError::Unused)));
    }

    proptest! {
        #[test]
        fn no_header_is_too_broken_to_be_read(text in "PROXY (TCP4|TCP6|UNKNOWN)?[ 0-9a-f.:\r\n]{0,60}", bytes: Vec<u8>, version: u8, family: u8) {
            version_1(text.as_bytes()).ok();
            version_1(&bytes).ok();
            for version in [version, 0x21] {
                version_2(version, family, &bytes).ok();
            }
        }
    }
}
