//! The ring buffer: the newest stable events, formatted once for all subscribers.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::api::events::{self, Form, StreamNotice};
use crate::event::{Cursor, StoredEvent, Topic, TopicGlobs};
use crate::store::Page;

/// The most bytes in the ring buffer. A subscriber that is further behind reads the store.
const BYTES_MAX: usize = 8 << 20;
/// The least bytes of a segment, if there are that many events: what a subscriber gets at once, and keeps in memory while its
/// client does not read.
const SEGMENT_BYTES: usize = 64 << 10;

/// All stable events between two positions, up to the newest.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// The position after which the ring buffer begins, and the one at which it ends. `None` before it has begun.
    bounds: Option<(Cursor, Cursor)>,
    segments: VecDeque<Arc<Segment>>,
    bytes: usize,
}

/// Some consecutive events.
#[derive(Debug)]
struct Segment {
    /// For each event its cursor, its topic, and its range in `frames`.
    events: Vec<(Cursor, Topic, Range<usize>)>,
    frames: Bytes,
    /// The cursor of the last event.
    last: Cursor,
}

/// Events as they are sent to a client.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Frames {
    /// The number of events.
    pub(super) events: usize,
    /// Their frames, one after another.
    pub(super) bytes: Bytes,
}

/// What a subscriber finds in the ring buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RingRead {
    /// Frames, maybe none of its topic, and the position after them.
    Frames(Frames, Cursor),
    /// The subscriber has read everything.
    UpToDate,
    /// The next events, if there are some, are only in the store.
    Behind,
}

impl Ring {
    /// Begins an empty ring buffer at a position.
    pub(super) fn begin(&mut self, at: Cursor) {
        *self = Self {
            bounds: Some((at, at)),
            ..Self::default()
        };
    }

    /// The position at which the ring buffer ends; `None` before it has begun.
    pub(super) fn end(&self) -> Option<Cursor> {
        self.bounds.map(|(_, end)| end)
    }

    /// Adds the next page of the log, and drops the oldest segments beyond the limit.
    pub(super) fn extend(&mut self, page: &Page) {
        let Some((mut start, _)) = self.bounds else { return };
        let mut events = page.events.iter().peekable();
        while events.peek().is_some() {
            let mut segment = Segment {
                events: Vec::new(),
                frames: Bytes::new(),
                last: Cursor::BEGINNING,
            };
            let mut frames = Vec::with_capacity(SEGMENT_BYTES);
            while frames.len() < SEGMENT_BYTES
                && let Some(event) = events.next()
            {
                let begin = frames.len();
                write_frame(&mut frames, event);
                segment
                    .events
                    .push((event.cursor, event.event.topic.clone(), begin..frames.len()));
                segment.last = event.cursor;
            }
            self.bytes += frames.len();
            segment.frames = frames.into();
            self.segments.push_back(Arc::new(segment));
        }
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.segments.pop_front()
        {
            self.bytes -= oldest.frames.len();
            start = oldest.last;
        }
        self.bounds = Some((start, page.next));
    }

    /// The next events for a subscriber that has come to `at`.
    pub(super) fn read(&self, at: Cursor, topic: Option<&Topic>, globs: &TopicGlobs) -> RingRead {
        let Some((start, end)) = self.bounds else {
            return RingRead::Behind;
        };
        if at == end {
            return RingRead::UpToDate;
        }
        // Only the store knows what a position beyond the end is worth: this ring buffer may be late, or the log another one.
        if at < start || at > end {
            return RingRead::Behind;
        }
        let index = self.segments.partition_point(|segment| segment.last <= at);
        match self.segments.get(index) {
            Some(segment) => RingRead::Frames(segment.frames_after(at, topic, globs), segment.last),
            // The last stable position has moved on without new events.
            None => RingRead::Frames(Frames::default(), end),
        }
    }
}

impl Segment {
    /// The frames after a position, of one topic, or of those that some patterns match.
    fn frames_after(&self, at: Cursor, topic: Option<&Topic>, globs: &TopicGlobs) -> Frames {
        let first = self.events.partition_point(|(cursor, _, _)| *cursor <= at);
        let events = &self.events[first..];
        match (topic, events.first()) {
            (_, None) => Frames::default(),
            (None, Some((_, _, range))) if globs.is_all() => Frames {
                events: events.len(),
                bytes: self.frames.slice(range.start..),
            },
            _ => {
                let is_wanted = |other: &Topic| topic.map_or_else(|| globs.matches(other), |topic| topic == other);
                let wanted = events.iter().filter(|(_, other, _)| is_wanted(other));
                let (mut frames, mut count) = (Vec::new(), 0);
                for (_, _, range) in wanted {
                    frames.extend_from_slice(&self.frames[range.clone()]);
                    count += 1;
                }
                Frames {
                    bytes: frames.into(),
                    events: count,
                }
            }
        }
    }
}

/// Events as frames.
pub(super) fn frames(events: &[StoredEvent]) -> Frames {
    let mut frames = Vec::new();
    for event in events {
        write_frame(&mut frames, event);
    }
    Frames {
        events: events.len(),
        bytes: frames.into(),
    }
}

/// A frame that is not an event.
pub(super) fn notice(notice: StreamNotice) -> Vec<u8> {
    let data = serde_json::to_string(&notice).expect("a cursor and a text are always JSON");
    format!("event: {}\ndata: {data}\n\n", notice.kind).into_bytes()
}

/// Formats one event as a Server-Sent Event: WHATWG HTML, section 9.2.
fn write_frame(out: &mut Vec<u8>, event: &StoredEvent) {
    out.extend_from_slice(format!("id: {}\ndata: ", event.cursor).as_bytes());
    events::StoredEvent::of(event, Form::OneLine).write_json(out);
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, EventId, Payload, Source, Timestamp};

    fn event(batch: i64, topic: &str) -> StoredEvent {
        StoredEvent {
            event: Event {
                topic: Topic::parse(topic.to_owned()).unwrap(),
                event_id: EventId::parse(batch.to_string()).unwrap(),
                occurred_at: Timestamp::from_micros(0).unwrap(),
                source: Source::parse("s").unwrap(),
                payload: Payload::parse("{\n}").unwrap(),
                headers: None,
            },
            received_at: Timestamp::from_micros(0).unwrap(),
            cursor: Cursor::new(batch, 0),
            trace: None,
        }
    }

    fn page(batches: std::ops::Range<i64>, next: i64) -> Page {
        Page {
            events: batches
                .map(|batch| event(batch, if batch % 2 == 0 { "even" } else { "odd" }))
                .collect(),
            next: Cursor::new(next, 0),
            is_last: true,
            is_truncated: false,
        }
    }

    fn ring(batches: std::ops::Range<i64>) -> Ring {
        let mut ring = Ring::default();
        ring.begin(Cursor::new(batches.start - 1, 0));
        let next = batches.end - 1;
        ring.extend(&page(batches, next));
        ring
    }

    #[test]
    fn formats_an_event_as_one_frame() {
        let text = String::from_utf8(frames(&[event(7, "t")]).bytes.to_vec()).unwrap();
        let cursor = Cursor::new(7, 0);
        assert_eq!(
            text,
            format!(
                "id: {cursor}\ndata: {{\"topic\":\"t\",\"event_id\":\"7\",\"timestamp\":\"1970-01-01T00:00:00Z\",\
                 \"source\":\"s\",\"payload\":{{ }},\"received_at\":\"1970-01-01T00:00:00Z\",\"cursor\":\"{cursor}\"}}\n\n"
            )
        );
    }

    #[test]
    fn reads_the_events_after_a_position() {
        let ring = ring(10..13);
        assert_eq!(
            ring.read(Cursor::new(12, 0), None, &TopicGlobs::All),
            RingRead::UpToDate
        );
        assert_eq!(ring.read(Cursor::new(13, 0), None, &TopicGlobs::All), RingRead::Behind);
        assert_eq!(ring.read(Cursor::new(8, 0), None, &TopicGlobs::All), RingRead::Behind);
        let all = frames(&[event(10, "even"), event(11, "odd"), event(12, "even")]);
        assert_eq!(
            ring.read(Cursor::new(9, 0), None, &TopicGlobs::All),
            RingRead::Frames(all, Cursor::new(12, 0))
        );
        let odd = Topic::parse("odd").unwrap();
        let rest = frames(&[event(11, "odd")]);
        assert_eq!(
            ring.read(Cursor::new(10, 0), Some(&odd), &TopicGlobs::All),
            RingRead::Frames(rest, Cursor::new(12, 0))
        );
        assert_eq!(
            ring.read(Cursor::new(11, 0), Some(&odd), &TopicGlobs::All),
            RingRead::Frames(Frames::default(), Cursor::new(12, 0))
        );
    }

    #[test]
    fn follows_a_position_without_events() {
        let mut ring = ring(10..13);
        ring.extend(&page(0..0, 20));
        assert_eq!(
            ring.read(Cursor::new(12, 0), None, &TopicGlobs::All),
            RingRead::Frames(Frames::default(), Cursor::new(20, 0))
        );
        assert_eq!(
            ring.read(Cursor::new(20, 0), None, &TopicGlobs::All),
            RingRead::UpToDate
        );
        ring.extend(&page(21..22, 21));
        assert_eq!(
            ring.read(Cursor::new(20, 0), None, &TopicGlobs::All),
            RingRead::Frames(frames(&[event(21, "odd")]), Cursor::new(21, 0))
        );
    }

    #[test]
    fn drops_its_oldest_and_leaves_no_gap() {
        let mut ring = Ring::default();
        assert_eq!(ring.read(Cursor::BEGINNING, None, &TopicGlobs::All), RingRead::Behind);
        ring.begin(Cursor::BEGINNING);
        let mut begin = 1;
        while ring.read(Cursor::BEGINNING, None, &TopicGlobs::All) != RingRead::Behind {
            ring.extend(&page(begin..begin + 1000, begin + 999));
            begin += 1000;
            assert!(ring.bytes <= BYTES_MAX);
        }
        // From its oldest position on, every event is there.
        let (start, end) = ring.bounds.unwrap();
        let (mut at, mut found) = (start, 0);
        while let RingRead::Frames(frames, next) = ring.read(at, None, &TopicGlobs::All) {
            assert!(frames.bytes.len() < SEGMENT_BYTES + 1000);
            let ids = frames
                .bytes
                .split(|byte| *byte == b'\n')
                .filter(|line| line.starts_with(b"id: "));
            assert_eq!(ids.count(), frames.events);
            found += frames.events;
            at = next;
        }
        assert_eq!(at, end);
        assert_eq!(i64::try_from(found).unwrap(), end.batch() - start.batch());
    }
}
