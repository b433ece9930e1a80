//! The table: medians, the ratio to the better etcd, and how far the rounds were apart.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use super::options::Options;
use super::record::Record;
use super::record::median;
use super::server::Contender;
use super::workload;
use super::workload::Better;
use super::workload::Figure;
use super::workload::Workload;

/// The command as one would type it; where a server lay and that the table was written matters to nobody.
pub fn heading(args: &[&str], took_s: u64) -> String {
    let mut command = String::from("cargo xtask bench");
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            "--server" => drop(args.next()),
            "--write" => {}
            arg => {
                let _ = write!(command, " {arg}");
            }
        }
    }
    format!("`{command}`, {} min.", took_s.div_ceil(60))
}

pub fn markdown(options: &Options, contenders: &[Contender], record: &Record) -> String {
    let measured: Vec<usize> =
        (0..contenders.len()).filter(|&index| contenders[index].name != "garboard again").collect();
    let mut text = String::from("| workload | figure |");
    measured.iter().for_each(|&index| text.push_str(&format!(" {} |", contenders[index].name)));
    text.push_str(" ratio | rounds |");
    text.push_str(if options.noise { " same binary |\n" } else { "\n" });
    text.push_str("| --- | --- |");
    text.push_str(&" ---: |".repeat(measured.len() + 2 + usize::from(options.noise)));
    text.push('\n');
    for workload in workload::ALL.iter().filter(|workload| record.has(workload)) {
        for (number, figure) in workload.figures(options.members).enumerate() {
            let title = if number == 0 { workload.title } else { "" };
            let _ =
                writeln!(text, "| {title} | {} |{}", figure.title, row(options, contenders, record, workload, figure));
        }
    }
    text
}

fn row(options: &Options, contenders: &[Contender], record: &Record, workload: &Workload, figure: &Figure) -> String {
    let of = |index: usize| record.rounds(workload, figure.key, index);
    let is_etcd = |index: &usize| !contenders[*index].ours;
    let etcds: Vec<usize> = (0..contenders.len()).filter(is_etcd).collect();
    let ours = etcds.len();
    let mut text = String::new();
    for index in 0..=ours {
        let cell = match median(of(index)) {
            _ if !record.is_served(workload, figure.key, index) => "not served".to_owned(),
            Some(value) => number(value),
            None => "-".to_owned(),
        };
        let _ = write!(text, " {cell} |");
    }
    let peers: Vec<&[f64]> = etcds.iter().map(|&index| of(index)).collect();
    let (ratio, rounds) = match Ratio::of(figure.better, of(ours), &peers) {
        Some(ratio) => (ratio.show(figure.better), format!("{:.2}–{:.2}", ratio.least, ratio.most)),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let _ = write!(text, " {ratio} | {rounds} |");
    if options.noise {
        let again = Ratio::of(figure.better, of(ours + 1), &[of(ours)]);
        let again = again.map_or("-".to_owned(), |again| format!("{:.2}", again.medians));
        let _ = write!(text, " {again} |");
    }
    text
}

/// Ours to the better of the peers: of the medians, and the extremes of the rounds.
#[derive(Debug, PartialEq)]
struct Ratio {
    medians: f64,
    least: f64,
    most: f64,
}

// === impl Ratio ===

impl Ratio {
    fn of(better: Better, ours: &[f64], peers: &[&[f64]]) -> Option<Self> {
        let best = |values: &mut dyn Iterator<Item = f64>| match better {
            Better::Lower => values.reduce(f64::min),
            Better::Higher => values.reduce(f64::max),
        };
        let divide = |ours: f64, peer: f64| (peer > 0.0).then(|| ours / peer);
        let medians = divide(median(ours)?, best(&mut peers.iter().filter_map(|peer| median(peer)))?)?;
        let rounds = ours.iter().enumerate().filter_map(|(round, ours)| {
            divide(*ours, best(&mut peers.iter().filter_map(|peer| peer.get(round).copied()))?)
        });
        let (least, most) = rounds.fold((f64::MAX, 0.0_f64), |(least, most), r| (least.min(r), most.max(r)));
        Some(Self { medians, least, most })
    }

    /// Bold where we are behind.
    fn show(&self, better: Better) -> String {
        let behind = match better {
            Better::Lower => self.medians > 1.0,
            Better::Higher => self.medians < 1.0,
        };
        if behind { format!("**{:.2}**", self.medians) } else { format!("{:.2}", self.medians) }
    }
}

/// Three digits say all that a measurement here can say.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.0995 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Fails unless the document has a place for the table of so many members.
pub fn check(path: &Path, members: usize) -> anyhow::Result<()> {
    placed(path, members, "").map(drop)
}

/// Puts the text into the document, at the place for so many members.
pub fn write(path: &Path, members: usize, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, placed(path, members, text)?).with_context(|| format!("write {}", path.display()))
}

fn placed(path: &Path, members: usize, text: &str) -> anyhow::Result<String> {
    let document = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let [begin, end] = marks(members);
    replaced(&document, &begin, &end, text).with_context(|| format!("{} lacks {begin} or {end}", path.display()))
}

fn marks(members: usize) -> [String; 2] {
    let of = if members == 1 { String::new() } else { format!(", {members} members") };
    ["begin", "end"].map(|edge| format!("<!-- bench{of}: {edge} -->"))
}

fn replaced(document: &str, begin: &str, end: &str, text: &str) -> Option<String> {
    let (head, rest) = document.split_once(begin)?;
    let (_, tail) = rest.split_once(end)?;
    Some(format!("{head}{begin}\n{}\n{end}{tail}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::super::run::Outcome;
    use super::*;

    #[test]
    fn the_ratio_is_to_the_better_peer() {
        let (ours, slow, fast) = ([2.0, 6.0, 4.0], [8.0, 8.0, 8.0], [2.0, 4.0, 4.0]);
        let lower = Ratio::of(Better::Lower, &ours, &[&slow, &fast]);
        assert_eq!(lower, Some(Ratio { medians: 1.0, least: 1.0, most: 1.5 }));
        let higher = Ratio::of(Better::Higher, &ours, &[&slow, &fast]);
        assert_eq!(higher, Some(Ratio { medians: 0.5, least: 0.25, most: 0.75 }));
        assert_eq!(Ratio::of(Better::Lower, &[], &[&slow]), None);
        assert_eq!(Ratio::of(Better::Lower, &ours, &[&[0.0]]), None);
    }

    #[test]
    fn behind_is_bold_whichever_way_is_better() {
        let ratio = Ratio { medians: 1.5, least: 1.0, most: 2.0 };
        assert_eq!((ratio.show(Better::Lower), ratio.show(Better::Higher)), ("**1.50**".into(), "1.50".into()));
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [24606.4, 100.4, 45.73, 9.996, 0.443, 0.05, 0.0].map(number);
        assert_eq!(shown, ["24606", "100", "45.7", "10.0", "0.44", "0.0500", "0.00"]);
    }

    #[test]
    fn a_row_holds_medians_ratios_noise_and_what_is_not_served() {
        let options = Options::parse(&["--noise"]).unwrap();
        let contenders = [
            Contender::etcd("etcd 3.6", "a".into()),
            Contender::etcd("etcd 3.7", "b".into()),
            Contender::ours("garboard", "c".into()),
            Contender::ours("garboard again", "c".into()),
        ];
        let workload = workload::named("maintenance").unwrap();
        let mut record = Record::default();
        for (index, p99) in [4.0, 2.0, 1.0, 1.1].into_iter().enumerate() {
            let mut outcome = Outcome::default();
            outcome.figures.insert("alone_p99_ms".into(), p99);
            if contenders[index].ours {
                outcome.not_served.push("snapshot".into());
            } else {
                outcome.figures.insert("snapshot_p99_ms".into(), 7.0);
            }
            record.add(workload, index, &contenders[index], outcome);
        }
        let table = markdown(&options, &contenders, &record);
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows[0], "| workload | figure | etcd 3.6 | etcd 3.7 | garboard | ratio | rounds | same binary |");
        assert_eq!(rows[1], "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
        assert!(
            rows[2].ends_with("| put p99 alone, ms | 4.00 | 2.00 | 1.00 | 0.50 | 0.50–0.50 | 1.10 |"),
            "{}",
            rows[2]
        );
        assert_eq!(rows[3], "|  | put p99 during snapshot, ms | 7.00 | 7.00 | not served | - | - | - |");
        assert_eq!(rows.len(), 2 + workload.figures(1).count());
    }

    #[test]
    fn the_document_around_the_marks_stays() {
        let [begin, end] = marks(1);
        let replaced = |document: &str, text| replaced(document, &begin, &end, text);
        let [begin, end] = marks(3);
        let others = format!("{begin}\nof three\n{end}");
        let [begin, end] = marks(1);
        let document = format!("before\n{others}\n{begin}\nold\n{end}\nafter\n");
        let new = replaced(&document, "new\n\n").unwrap();
        assert_eq!(new, format!("before\n{others}\n{begin}\nnew\n{end}\nafter\n"));
        assert_eq!(replaced(&new, "new").unwrap(), new);
        assert_eq!(replaced(&others, "new"), None);
        assert_eq!(replaced(&format!("{end}{begin}"), "new"), None);
    }

    #[test]
    fn the_documents_tables_have_their_places() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
        for (members, is_there) in [(1, true), (3, true), (5, false)] {
            assert_eq!(check(&path, members).is_ok(), is_there, "{members}");
        }
    }

    #[test]
    fn the_heading_shows_what_others_can_repeat() {
        let heading = heading(&["--scale", "0.1", "--server", "/some/where", "--write", "--noise"], 61);
        assert_eq!(heading, "`cargo xtask bench --scale 0.1 --noise`, 2 min.");
    }
}
