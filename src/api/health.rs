//! Answers of the probes, and of `GET /` to a program.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The name and the version of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceInfo {
    /// Always `eventsieve`.
    #[schema(pattern = "^eventsieve$")]
    pub service: Cow<'static, str>,
    /// Always `alive`.
    #[schema(pattern = "^alive$")]
    pub status: Cow<'static, str>,
    /// The version of the program.
    #[schema(example = "0.1.0")]
    pub version: Cow<'static, str>,
}

/// The response of a probe that succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Probe {
    /// `alive` or `ready`
    pub status: ProbeStatus,
}

/// The status of a probe that succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeStatus {
    /// The process runs.
    Alive,
    /// Publishing can succeed.
    Ready,
}

/// The health of the service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `healthy`, `degraded` (the sink is down, events have not been stable for more than 10 s, or publishing is refused for want of room) or, with 503, `unhealthy`
    pub status: HealthStatus,
    /// The health of the store.
    pub store: StoreHealth,
    /// The health of the sink (Redis).
    pub fanout: SinkHealth,
    /// Whether there is room for events that wait for their commit.
    pub queue: QueueHealth,
}

/// The health of the service, for those who may not read more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthStatusOnly {
    /// As in the whole answer.
    pub status: HealthStatus,
}

/// The status of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Everything works.
    Healthy,
    /// Publishing works, but subscribers get events late, or there is no room for a moment.
    Degraded,
    /// Publishing cannot succeed.
    Unhealthy,
}

/// The health of the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StoreHealth {
    /// `postgres` or `sqlite`
    #[schema(pattern = "^(postgres|sqlite)$")]
    pub kind: Cow<'static, str>,
    /// `up` or `down`
    pub status: ComponentStatus,
    /// The visibility lag: by how many seconds cursor reads are behind what is committed.
    #[schema(minimum = 0)]
    pub unsettled_seconds: f64,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<Cow<'static, str>>,
}

/// The health of the sink (Redis).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SinkHealth {
    /// `redis` or `process`
    #[schema(pattern = "^(redis|process)$")]
    pub kind: Cow<'static, str>,
    /// `up` or `down`
    pub status: ComponentStatus,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<Cow<'static, str>>,
}

/// The room for events that wait for their commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueHealth {
    /// `up`, or `down` while also small requests are refused
    pub status: ComponentStatus,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<Cow<'static, str>>,
}

/// The status of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComponentStatus {
    /// It works.
    Up,
    /// It does not work.
    Down,
}
