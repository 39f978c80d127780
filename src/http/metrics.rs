//! `GET /metrics`: every metric of this process, from memory, also while the store is down or does not answer.

use axum::extract::State;
use axum::http::{HeaderName, header};

use super::docs::answers::observe::MetricsAnswers;
use super::error::ApiError;
use super::guard::{self, May};
use super::state::AppState;
use crate::telemetry;

/// The text format of Prometheus.
const TEXT: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];

/// Get the metrics of this process, for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    tag = "observe",
    responses(MetricsAnswers)
)]
pub(super) async fn show(
    _: May<guard::Metrics>,
    State(state): State<AppState>,
) -> Result<([(HeaderName, &'static str); 1], String), ApiError> {
    let rendered = state.metrics.render(|| state.set_gauges());
    let text = rendered.map_err(|error| {
        tracing::error!(%error, "failed to write the metrics, answering 500");
        ApiError::Internal
    })?;
    Ok((TEXT, text))
}

impl AppState {
    /// Sets the gauges that are read from other parts of the service when they are asked for.
    fn set_gauges(&self) {
        let (metrics, ingest) = (&self.metrics, &self.ingest);
        let budgets = [&self.answers, &self.encoders, &self.results, &self.figures];
        for (gauge, number) in [
            (&metrics.http_connections_max, self.limits.connections_max),
            (&metrics.answer_bytes, budgets.iter().map(|budget| budget.taken()).sum()),
            (
                &metrics.answer_bytes_max,
                budgets.iter().map(|budget| budget.max()).sum(),
            ),
            (&metrics.queue_events, ingest.queued()),
            (&metrics.queue_events_max, ingest.capacity()),
            (&metrics.queue_bytes, ingest.bytes().taken()),
            (&metrics.queue_bytes_max, ingest.bytes().max()),
            (&metrics.subscribers, self.subscribers.subscribers()),
            (&metrics.subscribers_max, self.subscribers.subscribers_max()),
        ] {
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        }
        let lost = telemetry::lost_lines().saturating_sub(metrics.log_lines_lost.get());
        metrics.log_lines_lost.inc_by(lost);
        metrics.sink_up.set(self.sink.error.borrow().is_none().into());
    }
}
