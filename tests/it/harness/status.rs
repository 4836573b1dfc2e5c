//! The master's status at one instant.

use serde_json::Value;

/// `/status`, with the books checked.
#[derive(Debug, Clone)]
pub struct Status(pub Value);

impl Status {
    /// Reads the page. Panics if the books do not balance.
    pub fn read(json: &str) -> Self {
        let status = Self(serde_json::from_str(json).expect("JSON"));
        let settled = status.delivered() + status.refused_in_all();
        assert_eq!(status.accepted(), settled + status.in_flight(), "the books do not balance: {json}");
        let mut somewhere = number(&status.0["routing"]["peeking"]) + number(&status.0["routing"]["at_the_gate"]);
        for slot in status.0["balance"].as_array().expect("the slots' books") {
            let of = |name: &str| number(&slot[name]);
            let settled = of("delivered") + of("refused") + of("moved");
            assert_eq!(of("assigned"), settled + of("in_flight") + of("held"), "{slot}: {json}");
            somewhere += of("in_flight") + of("held");
        }
        assert_eq!(status.in_flight(), somewhere, "in flight by slot: {json}");
        for (slot, book) in status.slots().zip(status.0["balance"].as_array().expect("the slots' books")) {
            let told =
                ["slot", "delivered", "in_flight", "held"].map(|name| (number(&slot[name]), number(&book[name])));
            assert!(told.iter().all(|(told, book)| told == book), "{slot} and {book}");
        }
        status
    }

    pub fn accepted(&self) -> u64 {
        number(&self.0["accepted"])
    }

    /// Over all slots.
    pub fn delivered(&self) -> u64 {
        self.0["delivered"].as_array().expect("delivered").iter().map(number).sum()
    }

    pub fn refused(&self, reason: &str) -> u64 {
        number(&self.0["refused"][reason])
    }

    pub fn refused_in_all(&self) -> u64 {
        self.0["refused"].as_object().expect("refused").values().map(number).sum()
    }

    /// Held, or sent and not acknowledged.
    pub fn in_flight(&self) -> u64 {
        number(&self.0["in_flight"])
    }

    pub fn held(&self) -> u64 {
        number(&self.0["held"])
    }

    pub fn number(&self, name: &str) -> u64 {
        number(&self.0[name])
    }

    pub fn slots(&self) -> impl Iterator<Item = &Value> {
        self.0["slots"].as_array().expect("slots").iter()
    }

    /// A figure of a slot.
    pub fn of_slot(&self, slot: usize, name: &str) -> u64 {
        number(&self.0["slots"][slot][name])
    }

    /// A figure of each slot.
    pub fn of_each(&self, name: &str) -> Vec<u64> {
        self.slots().map(|slot| number(&slot[name])).collect()
    }

    /// Whether it is so with a slot: `hung`, `drained`.
    pub fn is(&self, slot: usize, what: &str) -> bool {
        self.0["slots"][slot][what].as_bool().expect("yes or no")
    }

    pub fn state(&self, slot: usize) -> &str {
        self.0["slots"][slot]["state"].as_str().expect("state")
    }

    /// The process in a slot, while there is one.
    pub fn pid(&self, slot: usize) -> Option<u32> {
        self.0["slots"][slot]["pid"].as_u64().map(|pid| pid as u32)
    }

    pub fn all_ready(&self) -> bool {
        self.slots().all(|slot| slot["state"] == "ready")
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}
