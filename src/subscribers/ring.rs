//! The tail: the newest settled events, written once for all followers.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::api::events::{self, Form};
use crate::event::{Cursor, StoredEvent, Topic};
use crate::store::Page;

/// The most bytes that the tail keeps. Who is further behind reads the store.
const TAIL_BYTES_MAX: usize = 8 << 20;
/// The least bytes of a segment, where there are so many: what a follower is given at once, and keeps in memory when it does
/// not read on.
const SEGMENT_BYTES: usize = 64 << 10;

/// All settled events between two places, the newest that there are.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// The places behind which the tail begins, and at which it ends. Nothing before it has begun.
    bounds: Option<(Cursor, Cursor)>,
    segments: VecDeque<Arc<Segment>>,
    bytes: usize,
}

/// Some events in a row.
#[derive(Debug)]
struct Segment {
    /// Of each event its place, its topic, and where it is in `frames`.
    events: Vec<(Cursor, Topic, Range<usize>)>,
    frames: Bytes,
    /// No event of the tail before the next segment lies behind this place.
    last: Cursor,
}

/// Events as they are sent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Frames {
    /// How many.
    pub(super) events: usize,
    /// Their frames, one after the other.
    pub(super) bytes: Bytes,
}

/// What a follower finds in the tail.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Frames, maybe none of its topic, and the place that it has come to.
    Frames(Frames, Cursor),
    /// It has seen all that there is.
    Nothing,
    /// What it wants next is in the store alone.
    Behind,
}

impl Ring {
    /// Begins an empty tail at `edge`.
    pub(super) fn begin(&mut self, edge: Cursor) {
        *self = Self {
            bounds: Some((edge, edge)),
            ..Self::default()
        };
    }

    /// The place at which the tail ends.
    pub(super) fn end(&self) -> Option<Cursor> {
        self.bounds.map(|(_, end)| end)
    }

    /// Adds what comes next in the log, and forgets the oldest beyond the bound.
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
        while self.bytes > TAIL_BYTES_MAX
            && let Some(oldest) = self.segments.pop_front()
        {
            self.bytes -= oldest.frames.len();
            start = oldest.last;
        }
        self.bounds = Some((start, page.next));
    }

    /// What there is for a follower that has come to `at`.
    pub(super) fn look(&self, at: Cursor, topic: Option<&Topic>) -> Look {
        let Some((start, end)) = self.bounds else {
            return Look::Behind;
        };
        if at >= end {
            return Look::Nothing;
        }
        if at < start {
            return Look::Behind;
        }
        let index = self.segments.partition_point(|segment| segment.last <= at);
        match self.segments.get(index) {
            Some(segment) => Look::Frames(segment.behind(at, topic), segment.last),
            // The edge has moved on over events of nobody.
            None => Look::Frames(Frames::default(), end),
        }
    }
}

impl Segment {
    /// The frames behind a place, of one topic or of all.
    fn behind(&self, at: Cursor, topic: Option<&Topic>) -> Frames {
        let first = self.events.partition_point(|(cursor, _, _)| *cursor <= at);
        let events = &self.events[first..];
        match (topic, events.first()) {
            (_, None) => Frames::default(),
            (None, Some((_, _, range))) => Frames {
                events: events.len(),
                bytes: self.frames.slice(range.start..),
            },
            (Some(topic), _) => {
                let of_the_topic = events.iter().filter(|(_, other, _)| other == topic);
                let frames = of_the_topic
                    .clone()
                    .flat_map(|(_, _, range)| self.frames[range.clone()].iter().copied());
                Frames {
                    bytes: frames.collect(),
                    events: of_the_topic.count(),
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

/// One event as a stream of Server-Sent Events has it: WHATWG HTML, section 9.2.
fn write_frame(out: &mut Vec<u8>, event: &StoredEvent) {
    out.extend_from_slice(format!("id: {}\nevent: event\ndata: ", event.cursor).as_bytes());
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
        }
    }

    fn tail(batches: std::ops::Range<i64>) -> Ring {
        let mut tail = Ring::default();
        tail.begin(Cursor::new(batches.start - 1, 0));
        let next = batches.end - 1;
        tail.extend(&page(batches, next));
        tail
    }

    #[test]
    fn a_frame_is_an_id_a_name_and_one_line_of_data() {
        let text = String::from_utf8(frames(&[event(7, "t")]).bytes.to_vec()).unwrap();
        let cursor = Cursor::new(7, 0);
        assert_eq!(
            text,
            format!(
                "id: {cursor}\nevent: event\ndata: {{\"topic\":\"t\",\"event_id\":\"7\",\"timestamp\":\"1970-01-01T00:00:00Z\",\
                 \"source\":\"s\",\"payload\":{{ }},\"received_at\":\"1970-01-01T00:00:00Z\",\"cursor\":\"{cursor}\"}}\n\n"
            )
        );
    }

    #[test]
    fn a_follower_finds_what_lies_behind_its_place() {
        let tail = tail(10..13);
        assert_eq!(tail.look(Cursor::new(12, 0), None), Look::Nothing);
        assert_eq!(tail.look(Cursor::new(13, 0), None), Look::Nothing);
        assert_eq!(tail.look(Cursor::new(8, 0), None), Look::Behind);
        let all = frames(&[event(10, "even"), event(11, "odd"), event(12, "even")]);
        assert_eq!(
            tail.look(Cursor::new(9, 0), None),
            Look::Frames(all, Cursor::new(12, 0))
        );
        let odd = Topic::parse("odd").unwrap();
        let rest = frames(&[event(11, "odd")]);
        assert_eq!(
            tail.look(Cursor::new(10, 0), Some(&odd)),
            Look::Frames(rest, Cursor::new(12, 0))
        );
        assert_eq!(
            tail.look(Cursor::new(11, 0), Some(&odd)),
            Look::Frames(Frames::default(), Cursor::new(12, 0))
        );
    }

    #[test]
    fn an_edge_that_moves_over_nothing_is_followed() {
        let mut tail = tail(10..13);
        tail.extend(&page(0..0, 20));
        assert_eq!(
            tail.look(Cursor::new(12, 0), None),
            Look::Frames(Frames::default(), Cursor::new(20, 0))
        );
        assert_eq!(tail.look(Cursor::new(20, 0), None), Look::Nothing);
        tail.extend(&page(21..22, 21));
        assert_eq!(
            tail.look(Cursor::new(20, 0), None),
            Look::Frames(frames(&[event(21, "odd")]), Cursor::new(21, 0))
        );
    }

    #[test]
    fn the_tail_forgets_its_oldest_and_never_leaves_a_hole() {
        let mut tail = Ring::default();
        assert_eq!(tail.look(Cursor::BEGINNING, None), Look::Behind);
        tail.begin(Cursor::BEGINNING);
        let mut begin = 1;
        while tail.look(Cursor::BEGINNING, None) != Look::Behind {
            tail.extend(&page(begin..begin + 1000, begin + 999));
            begin += 1000;
            assert!(tail.bytes <= TAIL_BYTES_MAX);
        }
        // From the oldest place that is still in it a follower finds every event.
        let (start, end) = tail.bounds.unwrap();
        let (mut at, mut found) = (start, 0);
        while let Look::Frames(frames, next) = tail.look(at, None) {
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
