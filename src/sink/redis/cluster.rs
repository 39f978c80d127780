//! Which node of a Cluster has which keys and sharded channels.

use ::redis::Value;

use crate::config::Host;
use crate::sink::contract::{SinkError, SinkErrorKind};

/// The number of slots of every Cluster.
const SLOTS: u16 = 16384;

/// The slots of a Cluster, and the masters that have them.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    /// First slot, last slot, master.
    ranges: Vec<(u16, u16, Host)>,
}

impl Slots {
    /// Reads the answer to `CLUSTER SLOTS` that `asked` gave.
    pub(super) fn read(answer: &Value, asked: &Host) -> Result<Self, SinkError> {
        let unexpected = || {
            let line = format!("{asked} answers CLUSTER SLOTS in a form that this program does not know");
            SinkError::new(SinkErrorKind::Unexpected, line)
        };
        let Value::Array(ranges) = answer else {
            return Err(unexpected());
        };
        let ranges: Option<Vec<_>> = ranges.iter().map(|range| read_range(range, asked)).collect();
        let ranges = ranges.ok_or_else(unexpected)?.into_iter().flatten().collect();
        Ok(Self { ranges })
    }

    /// The master that has a key or a sharded channel.
    pub(super) fn node_of(&self, key: &str) -> Result<&Host, SinkError> {
        let slot = slot_of(key);
        let has = |(first, last, _): &&(u16, u16, Host)| (*first..=*last).contains(&slot);
        self.ranges.iter().find(has).map(|(.., host)| host).ok_or_else(|| {
            let line = format!("the Cluster has no node for the slot {slot}, which {key:?} belongs to");
            SinkError::new(SinkErrorKind::Starting, line)
        })
    }

    /// The masters.
    pub(super) fn nodes(&self) -> Vec<Host> {
        let mut nodes: Vec<Host> = Vec::new();
        for (.., node) in &self.ranges {
            if !nodes.contains(node) {
                nodes.push(node.clone());
            }
        }
        nodes
    }
}

/// `[FIRST, LAST, [HOST, PORT, …], …]`, of which the first host is the master. The inner `None` is a node whose host no one knows.
fn read_range(range: &Value, asked: &Host) -> Option<Option<(u16, u16, Host)>> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else {
        return None;
    };
    let [name, Value::Int(port), ..] = master.as_slice() else {
        return None;
    };
    let name = match name {
        Value::BulkString(name) => std::str::from_utf8(name).ok()?,
        Value::SimpleString(name) => name,
        // The node that was asked does not know its own name.
        Value::Nil => "",
        _ => return None,
    };
    let name = match name {
        "?" => return Some(None),
        "" => &asked.name,
        name => name,
    };
    let host = Host {
        name: name.to_owned(),
        port: u16::try_from(*port).ok()?,
    };
    Some(Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, host)))
}

/// The slot of a key: by its part between `{` and `}` if it has one, as the specification of Redis Cluster defines it.
fn slot_of(key: &str) -> u16 {
    let hashed = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty())
        .unwrap_or(key);
    crc16(hashed.as_bytes()) % SLOTS
}

/// CRC-16/XMODEM: polynomial 0x1021, beginning with 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 { shifted } else { shifted ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_is_that_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of("123456789"), 12739);
        assert_eq!(slot_of("{user1000}.following"), slot_of("{user1000}.followers"));
        assert_eq!(slot_of("foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of("foo{{bar}}zap"), slot_of("{bar"));
    }

    fn node(name: &str, port: i64) -> Value {
        let id = Value::BulkString(b"id".to_vec());
        Value::Array(vec![Value::BulkString(name.as_bytes().to_vec()), Value::Int(port), id])
    }

    #[test]
    fn the_first_node_of_a_range_has_it() {
        let range =
            |first, last, master| Value::Array(vec![Value::Int(first), Value::Int(last), master, node("replica", 1)]);
        let answer = Value::Array(vec![
            range(0, 8191, node("a", 7000)),
            range(8192, 12738, node("?", 7000)),
            range(12739, 16383, node("", 7001)),
        ]);
        let asked = Host {
            name: "asked".to_owned(),
            port: 1,
        };
        let slots = Slots::read(&answer, &asked).unwrap();
        assert_eq!(slots.node_of("123456789").unwrap().to_string(), "asked:7001");
        let nodes: Vec<String> = slots.nodes().iter().map(ToString::to_string).collect();
        assert_eq!(nodes, ["a:7000", "asked:7001"]);
        let none = (0..)
            .map(|number| number.to_string())
            .find(|key| (8192..12739).contains(&slot_of(key)));
        assert_eq!(slots.node_of(&none.unwrap()).unwrap_err().kind, SinkErrorKind::Starting);
        assert!(Slots::read(&Value::Okay, &asked).is_err());
    }
}
