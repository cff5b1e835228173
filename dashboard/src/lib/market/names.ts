/** Company names of the default symbols; others show their symbol alone. */
const NAMES: Record<string, string> = {
  AAPL: "Apple",
  TSLA: "Tesla",
  NVDA: "Nvidia",
  MSFT: "Microsoft",
  GOOGL: "Alphabet",
  AMZN: "Amazon",
  META: "Meta Platforms",
  AMD: "Advanced Micro Devices",
  NFLX: "Netflix",
  INTC: "Intel",
  JPM: "JPMorgan Chase",
  BAC: "Bank of America",
  XOM: "Exxon Mobil",
  JNJ: "Johnson & Johnson",
  KO: "Coca-Cola",
  DIS: "Walt Disney",
  BA: "Boeing",
  SPY: "S&P 500 ETF",
  QQQ: "Nasdaq 100 ETF",
  IWM: "Russell 2000 ETF",
};

export function nameOf(symbol: string): string {
  return NAMES[symbol] ?? "";
}
