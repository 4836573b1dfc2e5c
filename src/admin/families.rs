//! The two text forms of a metric family.

use std::borrow::Cow;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::negotiate::Format;

/// The labels of one sample.
pub(super) type Labels<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// The labels of a sample that is alone in its family.
pub(super) fn no_labels() -> Labels<'static> {
    Vec::new()
}

/// Writes metric families in either form.
///
/// The library writes OpenMetrics, where a counter's family name lacks the `_total` of its samples and an info's the
/// `_info`. To a reader of the Prometheus text format such samples belong to no family: there the full name is the
/// family's, and an info is a gauge.
pub(super) struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
    format: Format,
}

impl<'a> Families<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>, format: Format) -> Self {
        Self { encoder, format }
    }

    /// `name` without `_total`.
    pub(super) fn counter<'l>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        let kind = MetricType::Counter;
        match self.format {
            Format::Text => self.family(&format!("{name}_total"), help, kind, samples, gauge_sample),
            Format::OpenMetrics => self.family(name, help, kind, samples, |sample, count| {
                sample.encode_counter::<NoLabelSet, _, f64>(&count, None)
            }),
        }
    }

    /// `name` without `_total`.
    pub(super) fn seconds_counter<'l>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l>, f64)>,
    ) -> fmt::Result {
        let kind = MetricType::Counter;
        match self.format {
            Format::Text => self.family(&format!("{name}_total"), help, kind, samples, gauge_sample),
            Format::OpenMetrics => self.family(name, help, kind, samples, |sample, seconds| {
                sample.encode_counter::<NoLabelSet, _, f64>(&seconds, None)
            }),
        }
    }

    pub(super) fn gauge<'l, N: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l>, N)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, samples, gauge_sample)
    }

    /// `name` without `_info`.
    pub(super) fn info(&mut self, name: &str, help: &str, labels: Labels<'_>) -> fmt::Result {
        match self.format {
            Format::Text => self.gauge(&format!("{name}_info"), help, [(labels, 1_u64)]),
            Format::OpenMetrics => {
                self.encoder.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
            }
        }
    }

    /// `buckets`: upper bound and count of that bucket alone; the last bound is infinite.
    pub(super) fn histogram(&mut self, name: &str, help: &str, sum: f64, buckets: &[(f64, u64)]) -> fmt::Result {
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        family.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }

    fn family<'l, N>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = (Labels<'l>, N)>,
        write: fn(&mut MetricEncoder<'_>, N) -> fmt::Result,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                write(&mut family, value)?;
            } else {
                write(&mut family.encode_family(&labels)?, value)?;
            }
        }
        Ok(())
    }
}

/// A sample named as its family: any gauge's, and in the text format a counter's.
fn gauge_sample<N: EncodeGaugeValue>(sample: &mut MetricEncoder<'_>, value: N) -> fmt::Result {
    sample.encode_gauge(&value)
}
