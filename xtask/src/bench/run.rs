//! One run: a fresh server, one load, and the counters at both ends of what is measured.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;

use super::load::Generator;
use super::proc_fs;
use super::proc_fs::Sample;
use super::record::Record;
use super::server::Contender;
use super::server::Place;
use super::server::Server;
use super::workload::Load;
use super::workload::Workload;

const MIB: f64 = 1024.0 * 1024.0;

pub struct Bench {
    pub contenders: Vec<Contender>,
    pub load: PathBuf,
    pub folder: PathBuf,
    pub scale: f64,
}

/// What one run has shown.
#[derive(Default)]
pub struct Outcome {
    pub figures: BTreeMap<String, f64>,
    pub not_served: Vec<String>,
    /// The part of the machine's CPU that others have used meanwhile.
    pub elsewhere: f64,
    /// CPU of the server per operation, in microseconds, by name of thread.
    pub threads_us_op: BTreeMap<String, f64>,
}

// === impl Bench ===

impl Bench {
    /// Each server once; every other round in the opposite order, so that a drift of the machine hits all alike.
    pub fn round(&self, workload: &'static Workload, round: usize, record: &mut Record) -> anyhow::Result<()> {
        let mut order: Vec<usize> = (0..self.contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let contender = &self.contenders[index];
            let folder = self.folder.join(format!("{}-{round}-{index}", workload.name));
            let outcome = self
                .run(contender, workload, &folder)
                .with_context(|| format!("{} on {}, round {}", workload.name, contender.name, round + 1))?;
            std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
            let shown = workload.figures.iter().filter_map(|figure| Some((figure, outcome.figures.get(figure.key)?)));
            let shown: Vec<String> = shown.map(|(figure, value)| format!("{} {value:.2}", figure.key)).collect();
            println!(
                "round {} {:<18} {:<14} {} | others {:.0} %",
                round + 1,
                workload.name,
                contender.name,
                shown.join(" "),
                outcome.elsewhere * 100.0
            );
            record.add(workload, index, contender.ours, outcome);
        }
        Ok(())
    }

    fn run(&self, contender: &Contender, workload: &Workload, folder: &Path) -> anyhow::Result<Outcome> {
        let place = Place::new(folder)?;
        let mut server = Server::start(contender, &place)?;
        let mut outcome = match self.measure(&workload.load, &place, &mut server) {
            Ok(outcome) => outcome,
            Err(error) => return Err(error.context(server.last_words())),
        };
        if workload.load.restart {
            server.stop()?;
            self.restart(contender, &workload.load, &place, &mut outcome)?;
        }
        // A figure that the generator does not report would be a silent gap in the table.
        for figure in workload.figures {
            ensure!(
                outcome.figures.contains_key(figure.key)
                    || outcome.not_served.iter().any(|part| figure.key.starts_with(part.as_str())),
                "no figure {}",
                figure.key
            );
        }
        Ok(outcome)
    }

    fn measure(&self, load: &Load, place: &Place, server: &mut Server) -> anyhow::Result<Outcome> {
        let mut generator = Generator::start(&self.load, load, place.endpoint(), self.scale)?;
        generator.ready(|| server.alive())?;
        let start = Sample::take(server.id(), generator.id())?;
        generator.go()?;
        let seen = generator.result(|| server.alive())?;
        // An exited process that nobody has waited for keeps its counters.
        let end = Sample::take(server.id(), generator.id())?;
        let memory = proc_fs::memory(server.id())?;
        let mut figures = seen.metrics;
        let ops = figures.get("ops").copied().unwrap_or(1.0);
        ensure!(ops > 0.0, "nothing was done in the time");
        let cpu_us = end.server_cpu_us - start.server_cpu_us;
        let keys = f64::from(load.keys_at(self.scale));
        figures.extend(
            [
                ("cpu_us_op", cpu_us as f64 / ops),
                ("written_op", (end.written_bytes - start.written_bytes) as f64 / ops),
                ("anon_mib", memory.anonymous as f64 / MIB),
                ("anon_key", memory.anonymous as f64 / keys),
                ("peak_mib", memory.peak as f64 / MIB),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        let before = |name: &String| start.threads_cpu_us.get(name).copied().unwrap_or(0);
        let threads = end.threads_cpu_us.iter();
        Ok(Outcome {
            figures,
            not_served: seen.not_served,
            elsewhere: end.elsewhere_since(&start),
            threads_us_op: threads
                .map(|(name, us)| (name.clone(), us.saturating_sub(before(name)) as f64 / ops))
                .collect(),
        })
    }

    /// From the start of the process to the first answer, measured here: the generator polls from before the start.
    fn restart(&self, contender: &Contender, load: &Load, place: &Place, outcome: &mut Outcome) -> anyhow::Result<()> {
        let load = Load { workload: "first-read", ..*load };
        let mut generator = Generator::start(&self.load, &load, place.endpoint(), self.scale)?;
        generator.ready(|| Ok(()))?;
        let begin = Instant::now();
        let mut server = Server::start(contender, place)?;
        generator.go()?;
        generator.result(|| server.alive()).map_err(|error| error.context(server.last_words()))?;
        let took = begin.elapsed();
        let (cpu_us, memory) = (proc_fs::cpu_us(server.id())?, proc_fs::memory(server.id())?);
        let keys = f64::from(load.keys_at(self.scale));
        outcome.figures.extend(
            [
                ("restart_s", took.as_secs_f64()),
                ("restart_cpu_s", cpu_us as f64 / 1e6),
                ("restart_anon_key", memory.anonymous as f64 / keys),
                ("restart_rss_mib", memory.resident as f64 / MIB),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        Ok(())
    }
}
