// SPDX-License-Identifier: GPL-2.0-only
//! The store and the engine agree with the module's table of parameters.

use hippos_abi::parameters::{bytes, each, Parameter, ParameterKind};
use hippos_engine::{Administration, Settings};
use hippos_store::{Config, Eviction};

fn default(parameter: &Parameter) -> u64 {
    parameter.default.parse().expect("a number")
}

#[test]
fn default_settings_are_those_of_the_parameters() {
    let config = Config::default();
    assert_eq!(config.memory as u64, default(&each::memory_mb) << 20);
    let item_max = bytes(each::item_max.default.as_bytes());
    assert_eq!(Some(config.item_max), item_max);
    assert_eq!(config.item_min as u64, default(&each::item_min));
    assert_eq!(u64::from(config.factor), default(&each::factor));
    assert_eq!(config.eviction.name(), each::eviction.default);
    let settings = Settings::default();
    assert_eq!(u64::from(settings.tcp_port), default(&each::port));
    assert_eq!(each::udp.default, "1");
    assert_eq!(settings.udp_port, settings.tcp_port);
    assert_eq!(
        u64::from(settings.max_connections),
        default(&each::maxconns)
    );
    assert_eq!(u64::from(settings.backlog), default(&each::backlog));
    assert_eq!(u64::from(settings.udp_bytes), default(&each::udp_bytes));
    assert_eq!(settings.administration.name(), each::admin.default);
    assert_eq!(settings.administration, Administration::default());
}

#[test]
fn each_eviction_policy_has_its_word_in_the_parameters() {
    let ParameterKind::Choice(words) = each::eviction.kind else {
        panic!("eviction is a choice");
    };
    assert_eq!(words, Eviction::ALL.map(Eviction::name));
    for policy in Eviction::ALL {
        assert_eq!(Eviction::parse(policy.name().as_bytes()), Some(policy));
    }
    assert_eq!(Eviction::parse(b"lru"), None);
}
