import type { BarWindow } from "@/lib/api/types";
import { cn } from "@/lib/cn";
import { WINDOWS } from "@/lib/market/windows";

interface Props {
  value: BarWindow;
  onChange: (window: BarWindow) => void;
}

export function WindowPicker({ value, onChange }: Props) {
  return (
    <fieldset className="flex rounded-md border border-line p-0.5">
      <legend className="sr-only">Width of a bar</legend>
      {WINDOWS.map((window) => (
        <button
          key={window}
          type="button"
          aria-pressed={window === value}
          onClick={() => onChange(window)}
          className={cn(
            "h-6 min-w-8 rounded-[5px] px-2 font-medium text-muted text-xs transition-colors hover:text-text max-lg:h-8 max-lg:min-w-10",
            window === value && "bg-raised text-text",
          )}
        >
          {window}
        </button>
      ))}
    </fieldset>
  );
}
