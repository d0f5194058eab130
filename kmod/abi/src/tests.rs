// SPDX-License-Identifier: MIT OR GPL-2.0-only

use super::*;

#[test]
fn numbers_are_those_of_the_kernels_macros() {
    // Computed with _IOR('H', 0, 48 bytes) and so on in C. None may change.
    assert_eq!(
        REQUESTS,
        [
            ("GetInfo", 0x8030_4800),
            ("ReadStats", 0xc010_4801),
            ("SetFlush", 0x4004_4802),
            ("SetMemory", 0x4008_4803),
            ("ChangeSources", 0x4010_4804),
            ("ReadSources", 0xc010_4805),
            ("SetCredentials", 0x4010_4806),
            ("GetLimits", 0x8010_4807),
            ("GetAdmin", 0x8004_4809),
            ("SetAdmin", 0x4004_480a),
            ("GetRanges", 0x8018_480b),
            ("CloseConnections", 0xc020_480c),
            ("ReadVerify", 0xc010_480d),
            ("SetLatency", 0x4004_480e),
            ("ChangeLimits", 0x4018_480f),
        ]
    );
}

/// Numbers whose bytes all differ, so that a wrong position or width is detected.
const PATTERN: [u8; 48] = {
    let mut bytes = [0; 48];
    let mut i = 0;
    while i < bytes.len() {
        bytes[i] = i as u8 + 1;
        i += 1;
    }
    bytes
};

fn word(at: usize) -> u32 {
    u32::from_ne_bytes(PATTERN[at..at + 4].try_into().unwrap())
}

fn long(at: usize) -> u64 {
    u64::from_ne_bytes(PATTERN[at..at + 8].try_into().unwrap())
}

/// Decodes the pattern and encodes it again, which must give the same bytes. Other lengths are refused.
fn both_ways<S: Structure>() -> S {
    let bytes = &PATTERN[..S::SIZE];
    let value = S::decode(bytes).unwrap();
    assert_eq!(value.encode().as_ref(), bytes);
    for len in (0..=PATTERN.len()).filter(|len| *len != S::SIZE) {
        assert!(S::decode(&PATTERN[..len]).is_none(), "{len} bytes");
    }
    value
}

#[test]
fn layouts_stay_as_they_are() {
    let text: Text = both_ways();
    assert_eq!(
        (text.section, text.len, text.address),
        (word(0), word(4), Address(long(8)))
    );
    let input: Input = both_ways();
    assert_eq!(
        (input.operation, input.len, input.address),
        (word(0), word(4), Address(long(8)))
    );
    let limits: Limits = both_ways();
    assert_eq!((limits.udp_bytes, limits.udp_datagrams), (word(0), word(4)));
    assert_eq!(
        (limits.udp_rate, limits.udp_private_rate),
        (word(8), word(12))
    );
    let change = LimitsChange::decode(&PATTERN[..24]).unwrap();
    assert_eq!((change.fields, change.udp_bytes), (word(0), word(4)));
    assert_eq!((change.udp_datagrams, change.udp_rate), (word(8), word(12)));
    assert_eq!(change.udp_private_rate, word(16));
    assert_eq!(both_ways::<Admin>().who, word(0));
    assert_eq!(both_ways::<Latency>().action, word(0));
    assert_eq!(both_ways::<Flush>().delay, word(0));
    assert_eq!(both_ways::<Memory>().bytes, long(0));
    both_ways::<()>();
}

#[test]
fn reserved_bytes_are_written_as_zeros_and_ignored_when_read() {
    let info = Info::decode(&PATTERN).unwrap();
    assert_eq!(info.version, word(0));
    assert_eq!(info.port, u16::from_ne_bytes([5, 6]));
    assert_eq!((info.memory, info.release[0]), (long(8), 17));
    let mut zeroed = PATTERN;
    zeroed[6..8].fill(0);
    assert_eq!(info.encode(), zeroed);

    let ranges = Ranges::decode(&PATTERN[..24]).unwrap();
    assert_eq!(
        (ranges.memory_least, ranges.memory_most),
        (long(0), long(8))
    );
    assert_eq!(ranges.udp_bytes_most, word(16));
    let mut zeroed = PATTERN;
    zeroed[20..24].fill(0);
    assert_eq!(ranges.encode(), zeroed[..24]);
}

#[test]
fn only_structures_with_an_address_are_said_to_have_one() {
    const {
        assert!(Text::HAS_ADDRESS && Input::HAS_ADDRESS);
        assert!(!Info::HAS_ADDRESS && !Limits::HAS_ADDRESS && !Admin::HAS_ADDRESS);
        assert!(!Ranges::HAS_ADDRESS && !Flush::HAS_ADDRESS && !Memory::HAS_ADDRESS);
    }
}

/// The result of the module's check of an input.
fn accept<R: Request>(input: R::In) -> Result<(), InputError> {
    let bytes = input.encode();
    let bytes = bytes.as_ref();
    for wrong in [&bytes[1..], &[bytes, &[0]].concat()] {
        assert_eq!(R::accept(wrong).err(), Some(InputError::Invalid));
    }
    R::accept(bytes).map(|_| ())
}

#[test]
fn inputs_out_of_range_are_refused() {
    let invalid = Err(InputError::Invalid);
    let too_long = Err(InputError::TooLong);
    let text = |section| Text {
        section,
        len: u32::MAX,
        address: Address(u64::MAX),
    };
    assert_eq!(accept::<ReadStats>(text(12)), Ok(()));
    assert_eq!(accept::<ReadStats>(text(13)), invalid);
    assert_eq!(accept::<ReadSources>(text(0)), Ok(()));
    assert_eq!(accept::<ReadSources>(text(1)), invalid);
    assert_eq!(accept::<ReadVerify>(text(0)), Ok(()));
    assert_eq!(accept::<ReadVerify>(text(1)), invalid);
    for action in [LATENCY_OFF, LATENCY_ON, LATENCY_RESET] {
        assert_eq!(accept::<SetLatency>(Latency { action }), Ok(()));
    }
    assert_eq!(accept::<SetLatency>(Latency { action: 3 }), invalid);

    let input = |operation, len| Input {
        operation,
        len,
        address: Address(0),
    };
    assert_eq!(
        accept::<ChangeSources>(input(ALLOW_REMOVE, ALLOW_MAX)),
        Ok(())
    );
    assert_eq!(accept::<ChangeSources>(input(ALLOW_REMOVE + 1, 0)), invalid);
    assert_eq!(
        accept::<ChangeSources>(input(ALLOW_SET, ALLOW_MAX + 1)),
        too_long
    );
    assert_eq!(
        accept::<ChangeSources>(input(ALLOW_SET, u32::MAX)),
        too_long
    );
    assert_eq!(accept::<SetCredentials>(input(0, CREDENTIALS_MAX)), Ok(()));
    assert_eq!(
        accept::<SetCredentials>(input(0, CREDENTIALS_MAX + 1)),
        too_long
    );
    assert_eq!(accept::<SetCredentials>(input(1, 0)), invalid);

    for (delay, taken) in [(FLUSH_DELAY_MAX, Ok(())), (FLUSH_DELAY_MAX + 1, invalid)] {
        assert_eq!(accept::<SetFlush>(Flush { delay }), taken);
    }
    for (bytes, taken) in [(MEMORY_MIN, Ok(())), (MEMORY_MIN - 1, invalid)] {
        assert_eq!(accept::<SetMemory>(Memory { bytes }), taken);
    }
    for (who, taken) in [(0, Ok(())), (2, Ok(())), (3, invalid), (u32::MAX, invalid)] {
        assert_eq!(accept::<SetAdmin>(Admin { who }), taken);
    }
    let peer = Connections {
        address: [1; 16],
        port: 5,
        by_address: 1,
        ..Connections::default()
    };
    let idle = Connections {
        idle: 1,
        ..Connections::default()
    };
    assert_eq!(accept::<CloseConnections>(peer), Ok(()));
    assert_eq!(accept::<CloseConnections>(idle), Ok(()));
    for refused in [
        Connections::default(),
        Connections { port: 5, ..idle },
        Connections { count: 1, ..idle },
        Connections {
            by_address: 2,
            ..peer
        },
    ] {
        assert_eq!(accept::<CloseConnections>(refused), invalid);
    }
    let limits = |bytes, datagrams| LimitsChange::new(bytes, datagrams, None, None);
    for (change, taken) in [
        (limits(Some(UDP_BYTES_MIN), Some(1)), Ok(())),
        (limits(None, None), Ok(())),
        (limits(Some(UDP_BYTES_MIN - 1), None), invalid),
        (limits(None, Some(0)), invalid),
        (limits(None, Some(65_536)), invalid),
        (
            LimitsChange {
                fields: 16,
                ..limits(None, None)
            },
            invalid,
        ),
    ] {
        assert_eq!(accept::<ChangeLimits>(change), taken, "{change:?}");
    }
}

#[test]
fn a_change_of_limits_has_the_given_fields_alone() {
    let fields = [
        LIMITS_BYTES,
        LIMITS_DATAGRAMS,
        LIMITS_RATE,
        LIMITS_PRIVATE_RATE,
    ];
    for set in 0..16_u32 {
        let given = |field: u32| (set & field != 0).then_some(field + 100);
        let [bytes, datagrams, rate, private_rate] = fields.map(given);
        let change = LimitsChange::new(bytes, datagrams, rate, private_rate);
        let change = LimitsChange::decode(&change.encode()).unwrap();
        assert_eq!(fields.map(|field| change.of(field)), fields.map(given));
        assert_eq!(change.of(16), None);
    }
}

#[test]
fn administration_settings_keep_their_numbers_and_have_the_parameters_words() {
    // Modules and tools of different builds exchange them. None may change.
    assert_eq!(Administration::ALL.map(Administration::number), [0, 1, 2]);
    for setting in Administration::ALL {
        assert_eq!(Administration::from_number(setting.number()), Some(setting));
        assert_eq!(
            Administration::parse(setting.name().as_bytes()),
            Some(setting)
        );
    }
    let words = Administration::ALL.map(Administration::name);
    let parameters::ParameterKind::Choice(choice) = parameters::each::admin.kind else {
        panic!("admin is a choice");
    };
    assert_eq!(choice, words);
}

#[test]
fn the_device_lies_where_the_kernel_puts_its_name() {
    let name = DEVICE.strip_prefix("/dev/");
    assert_eq!(name, DEVICE_NAME.to_str().ok());
}

#[test]
fn sections_come_back_from_their_numbers() {
    for section in Section::ALL {
        assert_eq!(Section::from_number(section as u32), Some(section));
    }
    assert_eq!(Section::from_number(13), None);
}
