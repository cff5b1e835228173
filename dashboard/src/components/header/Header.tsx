import { Connection } from "./Connection";
import { Latency } from "./Latency";
import { Links } from "./Links";
import { Mark } from "./Mark";
import { MarketClock } from "./MarketClock";
import { MarketMode } from "./MarketMode";
import { ThemeToggle } from "./ThemeToggle";

/** One line on a wide screen; on a phone the clock and the latency take a second one. */
export function Header() {
  return (
    <header className="flex flex-wrap items-center gap-x-4 bg-surface px-4 py-1.5 lg:h-12 lg:flex-nowrap lg:py-0">
      <h1>
        <Mark />
      </h1>
      <MarketMode />
      <div className="order-last flex w-full items-center justify-between lg:contents">
        <div className="lg:border-line lg:border-l lg:pl-4">
          <MarketClock />
        </div>
        <div className="lg:order-2">
          <Latency />
        </div>
      </div>
      <div className="ml-auto hidden lg:order-1 xl:block">
        <Links />
      </div>
      <div className="ml-auto flex items-center gap-4 lg:order-3 xl:ml-0">
        <Connection />
        <ThemeToggle />
      </div>
    </header>
  );
}
