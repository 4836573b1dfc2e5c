//! V8's format: what real Node writes is walked, what is written here real Node reads, and any bytes do no harm.

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::super::compose::{begin_frame, write_value};
use super::super::raw::{Outside, Raw, walk};
use super::super::v8::Cursor;
use crate::node::wire::Serialization;

/// Runs a script with Node's own serializer at hand (`advanced`) and yields what it prints.
fn node(script: &str, input: &str) -> String {
    let script = format!("const {{ advanced }} = require('internal/child_process/serialization');\n{script}");
    let mut node = Command::new("node")
        .args(["--expose-internals", "--no-warnings", "-e", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("these tests need Node.js: `node` on the PATH");
    node.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("the script reads");
    let output = node.wait_with_output().expect("node");
    assert!(output.status.success(), "{}", output.status);
    String::from_utf8(output.stdout).expect("utf-8")
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len() / 2).map(|at| digit(2 * at)).collect()
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Each value stands between two fields that must be found, and once more as a reference.
const WRITE_EVERY_KIND: &str = r#"
const shared = new ArrayBuffer(12);
const cyclic = { a: 1 }; cyclic.self = cyclic;
const sparse = [1]; sparse[5000] = 2;
const named = [1, 2]; named.name = 'x';
const deep = JSON.parse('['.repeat(500) + ']'.repeat(500));
const error = new RangeError('no', { cause: { why: [1] } });
class Point { constructor() { this.x = 1; } }
const kinds = {
  undefined: undefined, null: null, true: true, false: false, zero: 0, minus: -1, least: -(2 ** 31),
  most: 2 ** 31 - 1, uint: 2 ** 32 - 1, double: 1.5, nan: NaN, infinity: -Infinity, bigint: 2n ** 70n, negative: -7n,
  nothing: 0n, empty: '', ascii: 'abc', latin: 'na\u00efve', wide: '\u65e5\u672c', odd: 'a\u65e5', half: '\ud800',
  rope: 'x'.repeat(3000) + '\u65e5', date: new Date(0), noDate: new Date(NaN), regexp: /a+\/b/giu,
  map: new Map([[1, { a: 2 }], ['b', new Map()]]), set: new Set([1, 'a', new Set()]), array: [1, 'a', null, [], {}],
  holes: [, 1, , 2], sparse, named, emptyArray: [], object: { a: { b: { c: [] } } }, numeric: { 1: 'a', 4294967294: 'b',
  1.5: 'c', '\u65e5': 'd', 'na\u00efve': 'e' }, boxedTrue: Object(true), boxedFalse: Object(false),
  boxedNumber: Object(1.5), boxedString: Object('\u65e5'), boxedBigint: Object(5n), buffer: Buffer.from('hello'),
  emptyBuffer: Buffer.alloc(0), bytes: new Uint8Array([1, 2]), clamped: new Uint8ClampedArray(3),
  shorts: new Int16Array([1]), floats: new Float32Array([1]), doubles: new Float64Array([1]), words: new Uint32Array(3),
  longs: new BigInt64Array([1n]), view: new DataView(shared, 4, 4), first: new Uint8Array(shared, 0, 4),
  arrayBuffer: shared, error, plainError: new TypeError('x'), evalError: new EvalError(), syntaxError: new SyntaxError(),
  referenceError: new ReferenceError(), uriError: new URIError(), noStack: Object.assign(new Error('e'), { stack: 1 }),
  cyclic, deep, point: new Point(), noPrototype: Object.assign(Object.create(null), { a: 1 }),
  many: Array.from({ length: 300 }, (_, at) => ({ at })),
  mixture: [new Map([[{}, [new Date(1)]]]), Buffer.from('x'), new Set([/x/]), Object('s'), shared, error, Object(1n)],
};
if (ArrayBuffer.prototype.resize) kinds.resizable = new ArrayBuffer(4, { maxByteLength: 16 });
const print = (name, message) => advanced.writeChannelMessage({ writeBuffer(req, buffer) {
  process.stdout.write(name + ' ' + Buffer.from(buffer).toString('hex') + '\n');
  return 0;
} }, {}, message, null);
for (const [name, value] of Object.entries(kinds)) {
  print(name, { before: name, value, again: [value, value], beside: { value }, cmd: 'NODE_X', after: 77 });
  print(name, value);
}
"#;

#[test]
fn everything_that_node_writes_is_walked() {
    let printed = node(WRITE_EVERY_KIND, "");
    let mut kinds = 0;
    for line in printed.lines() {
        let (name, hex) = line.split_once(' ').expect("two words");
        let frame = bytes_of(hex);
        assert_eq!(frame[..4], (frame.len() as u32 - 4).to_be_bytes());
        let mut fields: Vec<(String, Raw<'_>)> = Vec::new();
        let outside = walk(Serialization::Advanced, &frame[4..], |name, value| fields.push((name.to_owned(), value)));
        let outside = outside.expect("a header");
        assert_ne!(outside, Outside::Unknown, "{name}: {hex}");
        kinds += 1;
        // The first of each pair is the one with the fields around it.
        if fields.first().is_some_and(|(first, _)| first == "before") {
            let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["before", "value", "again", "beside", "cmd", "after"], "{name}");
            assert_eq!(fields[0].1.text().as_deref(), Some(name));
            assert!(fields[4].1.is_text("NODE_X"));
            assert_eq!(fields[5].1.count(), Some(77));
            check_value(name, fields[1].1);
            assert!(fields[3].1.field("value").is_some(), "{name}");
        }
        // Cut anywhere it is not walked, and nothing breaks.
        for end in (6..frame.len()).rev().take(300) {
            let cut = walk(Serialization::Advanced, &frame[4..end], |_, _| {}).ok();
            assert!(matches!(cut, None | Some(Outside::Unknown)), "{name} cut at {end}");
        }
    }
    assert!(kinds > 120, "{kinds}");
}

fn check_value(name: &str, value: Raw<'_>) {
    let text = |text: &str| assert_eq!(value.text().as_deref(), Some(text), "{name}");
    let number = |number: f64| assert_eq!(value.number(), Some(number), "{name}");
    match name {
        "undefined" | "null" => assert!(value.is_nothing()),
        "true" => assert!(value.is_true()),
        "zero" => number(0.0),
        "minus" => number(-1.0),
        "least" => number(-2_147_483_648.0),
        "most" => number(2_147_483_647.0),
        "uint" => number(4_294_967_295.0),
        "double" => number(1.5),
        "infinity" => number(f64::NEG_INFINITY),
        "empty" => text(""),
        "latin" => text("na\u{ef}ve"),
        "wide" => text("\u{65e5}\u{672c}"),
        "odd" => text("a\u{65e5}"),
        "half" => text("\u{fffd}"),
        "cyclic" => assert!(!value.stands_alone()),
        "object" => {
            assert!(value.stands_alone());
            assert!(value.field("a").and_then(|a| a.field("b")).is_some_and(|b| b.field("c").is_some()));
        }
        _ => {}
    }
}

/// Reads frames of values and prints them as JSON.
const READ: &str = r#"
const input = Buffer.from(require('fs').readFileSync(0, 'utf8').replace(/\s/g, ''), 'hex');
const channel = {};
advanced.initMessageChannel(channel);
for (const value of advanced.parseChannelMessages(channel, input)) console.log(JSON.stringify(value));
"#;

/// Any value that JSON can hold.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        (-(1i64 << 53)..1 << 53).prop_map(Into::into),
        // Short ones: serde_json does not read the last digits of long ones exactly.
        any::<i32>().prop_map(|number| (f64::from(number) / 64.0).into()),
        ".{0,20}".prop_map(Into::into),
        "[ -~]{0,200}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map("[a-z0-9\u{e9}\u{65e5}]{1,4}", inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Numbers as JavaScript has them: doubles all.
fn as_javascript(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
        Value::Array(elements) => elements.iter().map(as_javascript).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), as_javascript(value))).collect())
        }
        _ => value.clone(),
    }
}

#[test]
fn node_reads_everything_that_is_written() {
    let mut runner = TestRunner::deterministic();
    let strategy = any_json();
    let values: Vec<_> = (0..400).map(|_| strategy.new_tree(&mut runner).expect("value").current()).collect();
    let mut input = String::new();
    for value in &values {
        let mut frame = Vec::new();
        begin_frame(Serialization::Advanced, &mut frame);
        write_value(Serialization::Advanced, value, &mut frame);
        super::super::compose::end_frame(Serialization::Advanced, 0, &mut frame);
        input.push_str(&hex_of(&frame));
        input.push('\n');
    }
    let printed = node(READ, &input);
    let read: Vec<serde_json::Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(read.len(), values.len());
    for (written, read) in values.iter().zip(&read) {
        assert_eq!(as_javascript(read), as_javascript(written));
    }
}

proptest! {
    /// What is written is walked, and found again; the value between the fields is left as it stands.
    #[test]
    fn what_is_written_is_walked(value in any_json(), advanced: bool) {
        let serialization = if advanced { Serialization::Advanced } else { Serialization::Json };
        let whole = serde_json::json!({ "a": value, "b": "text", "c": [value, 5] });
        let mut body = Vec::new();
        if advanced {
            body.extend_from_slice(&[0xff, 13]);
        }
        write_value(serialization, &whole, &mut body);
        let mut fields = Vec::new();
        let outside = walk(serialization, &body, |name, value| fields.push((name.to_owned(), value))).expect("message");
        prop_assert_eq!(outside, Outside::Object);
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        prop_assert_eq!(names, ["a", "b", "c"]);
        let mut alone = Vec::new();
        write_value(serialization, &value, &mut alone);
        prop_assert_eq!(fields[0].1.bytes(), &alone);
        prop_assert!(fields[0].1.stands_alone());
        prop_assert_eq!(fields[0].1.text(), value.as_str().map(Into::into));
        prop_assert_eq!(fields[0].1.number(), value.as_f64());
        prop_assert!(fields[1].1.is_text("text"));
    }

    /// Bytes that look like V8's, but are any: a value, or none, and no more is taken than there is.
    #[test]
    fn any_bytes_are_walked_or_not(bytes in prop::collection::vec(
        prop_oneof![
            prop::sample::select(b"-_0TFIUNZ\"Sc^oaA;'DyxnzsR B~V\\r?{@$:,.mc\0".as_slice()), 0..6u8, any::<u8>(),
        ], 0..200,
    )) {
        let body = [&[0xff, 15], bytes.as_slice()].concat();
        let mut cursor = Cursor::of_message(&body).expect("header");
        let walked = cursor.skip();
        prop_assert!(cursor.at() <= body.len());
        prop_assert!(walked.is_ok() || walked.is_err_and(|error| error.at <= body.len()));
        walk(Serialization::Advanced, &body, |_, raw| {
            let (_, _, _) = (raw.text(), raw.number(), raw.field("a"));
            let (_, _, _) = (raw.is_true(), raw.is_nothing(), raw.stands_alone());
        }).expect("header");
    }
}
