//! The configuration in force, and its changes while the agent runs.

use std::time::Duration;

use crate::{
    config::{
        self, Association, Cpe, Origin, Traffic, Values,
        key::{Effect, KEYS},
    },
    control::message::Knob,
};

/// The configuration in force.
#[derive(Clone, Debug)]
pub struct Knobs {
    values: Values,
}

impl Knobs {
    /// Starts with the configuration that the agent was started with.
    pub fn new(values: Values) -> Self {
        warn_of_obsolete(&values);
        Self { values }
    }

    /// The current values of `[gateway.association]`.
    pub fn association(&self) -> Association {
        (&self.values).into()
    }

    /// The current knobs of the ACS.
    #[cfg(feature = "acs")]
    pub fn acs(&self) -> config::AcsKnobs {
        (&self.values).into()
    }

    /// The current knobs of Connection Requests and of the binding.
    pub fn cpe(&self) -> Cpe {
        (&self.values).into()
    }

    /// The current values of `[gateway.binding]` and `[gateway.police]`.
    pub fn traffic(&self) -> Traffic {
        (&self.values).into()
    }

    /// How long renewals may wait before they are written.
    pub fn store_interval(&self) -> Duration {
        Duration::from_millis(self.values.integer("agent", "store_interval_ms").unsigned_abs())
    }

    /// The filter directives of the log.
    pub fn log(&self) -> &str {
        self.values.text("agent", "log")
    }

    /// The keys that can change at run time, with their values.
    pub fn list(&self) -> Vec<Knob> {
        let live = KEYS.iter().filter(|key| key.effect == Effect::Live);
        live.filter_map(|key| {
            let (value, origin) = self.values.get(key)?;
            Some(Knob {
                key: key.path(),
                value: value.to_string(),
                default: key.preset_value().map(|preset| preset.to_string()),
                range: key.range(),
                unit: (!key.unit.is_empty()).then(|| key.unit.to_owned()),
                origin: origin.to_string(),
                help: key.help.to_owned(),
            })
        })
        .collect()
    }

    /// Changes knobs: all of them, or none.
    pub fn tune(&mut self, settings: &[(String, String)]) -> Result<(), config::Error> {
        let mut values = self.values.clone();
        for (path, value) in settings {
            let key = values.set(path, value, Origin::Tune)?;
            if key.effect == Effect::Start {
                return Err(config::Error::NotLive(key.path()));
            }
        }
        warn_of_obsolete(&values);
        self.values = values;
        Ok(())
    }

    /// Takes a configuration that was read again. Keys that take effect only at a start keep their values; returns
    /// those that differ.
    pub fn reload(&mut self, mut values: Values) -> Vec<String> {
        let mut kept = Vec::new();
        for key in KEYS.iter().filter(|key| key.effect == Effect::Start) {
            if values.get(key).map(|(value, _)| value) != self.values.get(key).map(|(value, _)| value) {
                values.keep(key, &self.values);
                kept.push(key.path());
            }
        }
        warn_of_obsolete(&values);
        self.values = values;
        kept
    }
}

fn warn_of_obsolete(values: &Values) {
    for (key, origin) in values.obsolete() {
        tracing::warn!(key = key.path(), %origin, "obsolete configuration key without effect; remove it: {}", key.help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn tuning_is_all_or_nothing() {
        let mut knobs = Knobs::new(Values::default());
        let before = knobs.association();
        let settings = [pair("gateway.association.nak_grace_s", "3"), pair("gateway.association.max_rows", "0")];
        assert!(knobs.tune(&settings).is_err());
        assert_eq!(knobs.association(), before);
        knobs.tune(&settings[..1]).expect("in range");
        assert_eq!(knobs.association().nak_grace.as_secs(), 3);
    }

    #[test]
    fn what_only_a_start_can_change_is_refused_by_tune_and_kept_by_reload() {
        let mut knobs = Knobs::new(Values::default());
        let error = knobs.tune(&[pair("agent.pin_dir", "/x")]).expect_err("not live");
        assert!(error.to_string().contains("takes effect only at a start"), "{error}");

        let mut values = Values::default();
        values.set("agent.pin_dir", "/x", Origin::Tune).expect("valid");
        values.set("gateway.association.nak_grace_s", "4", Origin::Tune).expect("valid");
        assert_eq!(knobs.reload(values), ["agent.pin_dir"]);
        assert_eq!(knobs.values.text("agent", "pin_dir"), "/sys/fs/bpf/tr111");
        assert_eq!(knobs.association().nak_grace.as_secs(), 4);
    }

    /// An obsolete key is accepted from files and from `tr111 tune`, and is reported.
    #[test]
    fn an_obsolete_key_is_accepted() {
        let mut values = Values::default();
        assert_eq!(values.obsolete().count(), 0);
        values.set("connreq.raw_fallback", "true", Origin::Flag("--x")).expect("valid");
        let told: Vec<_> = values.obsolete().map(|(key, origin)| (key.path(), origin.to_string())).collect();
        assert_eq!(told, [("connreq.raw_fallback".to_owned(), "--x".to_owned())]);
        let mut knobs = Knobs::new(values);
        let before = knobs.cpe();
        knobs.tune(&[pair("connreq.raw_fallback", "false")]).expect("accepted");
        assert_eq!(knobs.cpe(), before);
        assert!(knobs.list().iter().all(|knob| knob.key != "connreq.raw_fallback"));
    }

    #[test]
    fn the_list_holds_every_live_key_with_default_range_and_unit() {
        let list = Knobs::new(Values::default()).list();
        let grace = list.iter().find(|knob| knob.key == "gateway.association.nak_grace_s").expect("listed");
        assert_eq!((grace.value.as_str(), grace.default.as_deref()), ("10", Some("10")));
        assert_eq!((grace.range.as_str(), grace.unit.as_deref()), ("0 to 3600", Some("s")));
        assert!(list.iter().all(|knob| knob.key != "agent.pin_dir"));
    }
}
