use super::*;
use crate::report::autopsy::Moment;
use std::collections::BTreeMap;

fn autopsy() -> Autopsy {
    let moment = |before_s: f64, anon: u64| Moment {
        before_s,
        usage_bytes: Some(anon + 1000),
        kinds: BTreeMap::from([("anon".to_owned(), anon), ("file".to_owned(), 1000)]),
    };
    Autopsy {
        verdict: Some("<script>\"a\" & b\x07</script>".into()),
        limit_bytes: Some(1 << 20),
        series: vec![moment(120.0, 1 << 10), moment(60.0, 1 << 18), moment(0.0, 1 << 20)],
        ..Autopsy::default()
    }
}

#[test]
fn the_picture_is_well_formed_and_has_a_part_for_each_kind() {
    let picture = svg(&autopsy());
    let document = roxmltree::Document::parse(&picture).unwrap();
    let count = |name: &str| document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", name))).count();
    assert_eq!((count("path"), count("polyline")), (2, 1), "{picture}");
    assert!(picture.contains("limit 1.0 MiB") && picture.contains("-2 min") && !picture.contains("<script"));
    assert_eq!(count("script"), 0);
}

#[test]
fn what_is_not_there_or_not_sound_is_no_reason_to_fail() {
    let mut odd = autopsy();
    odd.series[0].before_s = f64::NAN;
    odd.series[1].usage_bytes = None;
    odd.limit_bytes = None;
    for autopsy in [odd, Autopsy::default()] {
        let picture = svg(&autopsy);
        roxmltree::Document::parse(&picture).unwrap();
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }
    assert!(html(&Autopsy::default()).contains("<pre>OOM kill at"));
}
