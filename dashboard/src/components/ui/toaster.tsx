"use client";

import { useSyncExternalStore } from "react";
import type { Toast, ToastStore } from "@/lib/toasts";
import { Button } from "./button";
import { CloseIcon } from "./icons";

const NONE: readonly Toast[] = [];

/** Failures, at the corner, until they are over or put away. */
export function Toaster({ store }: { store: ToastStore }) {
  const toasts = useSyncExternalStore(store.on, store.list, () => NONE);
  return (
    <div
      role="status"
      className="pointer-events-none fixed inset-x-3 bottom-3 z-50 flex flex-col items-end gap-2 sm:left-auto sm:w-80"
    >
      {toasts.map((toast) => (
        <div
          key={toast.id}
          className="pointer-events-auto flex w-full items-start gap-2 rounded-lg border border-line-strong bg-surface py-2.5 pr-1.5 pl-3.5 shadow-black/20 shadow-lg"
        >
          <div className="min-w-0 flex-1">
            <p className="font-medium text-down">{toast.title}</p>
            <p className="text-muted text-xs">{toast.detail}</p>
          </div>
          <Button
            size="icon"
            className="size-7"
            aria-label="Dismiss"
            onClick={() => store.dismiss(toast.key)}
          >
            <CloseIcon />
          </Button>
        </div>
      ))}
    </div>
  );
}
